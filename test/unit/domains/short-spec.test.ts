import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { passwordOf } from '../../../lib/domains/channel-address.ts'
import type { KnownDomain } from '../../../lib/domains/domain.ts'
import { parseListenerFlag, parseShort, type ShortUse } from '../../../lib/domains/short-spec.ts'
import { formatSpec, type Spec } from '../../../lib/domains/spec.ts'
import { DOMAINS } from '../../../lib/domains/table.ts'

const OWN = ['tcp', 'udp', 'unix', 'socks5', 'http', 'mixed', 'tls']
/** What this side has only one half of. */
const HALF: Readonly<Record<string, object>> = { http: { dial: undefined }, tls: { listen: undefined } }
const domains: KnownDomain[] = DOMAINS.flatMap((one) =>
  typeof one === 'object' && OWN.includes(one.name) ? [{ ...one, ...HALF[one.name] }] : [],
)
const context = { domains }

function take(use: ShortUse, text: string): Spec {
  return use === 'dynamic' ? parseShort(text, use, context) : parseListenerFlag(text, use, context)
}

/** Both halves as they are written, with the password of a channel. */
function halves(use: ShortUse, text: string): string[] {
  const { Listen, Forward } = take(use, text)
  return [Listen, Forward].map((at) => {
    const password = passwordOf(at)
    return `${at.Domain} ${at.Addr}${password === undefined ? '' : ` [${password.reveal()}]`}`
  })
}

const GOOD: Record<ShortUse, readonly (readonly [text: string, listen: string, forward: string])[]> = {
  dynamic: [
    ['http://:80', 'http :80', 'tunnel '],
    ['socks5://:1080', 'socks5 :1080', 'tunnel '],
    ['SOCKS5://:1080/', 'socks5 :1080', 'tunnel '],
    ['socks5://work_tunnel:password@127.0.0.1:1080', 'socks5 127.0.0.1:1080', 'tunnel work_tunnel [password]'],
    ['mixed://work@[::1]:0', 'mixed [::1]:0', 'tunnel work []'],
    ['1080', 'mixed 127.0.0.1:1080', 'tunnel '],
    ['0.0.0.0:1080', 'mixed 0.0.0.0:1080', 'tunnel '],
    ['[::1]:1080', 'mixed [::1]:1080', 'tunnel '],
    ['*:1080', 'mixed :1080', 'tunnel '],
    [':1080', 'mixed :1080', 'tunnel '],
    ['socks5://:1?user=a@b&password_file=/run/@x', 'socks5 :1?user=a@b&password_file=/run/@x', 'tunnel '],
  ],
  local: [
    ['tcp://ssh:ssh@127.0.0.1:2200', 'tcp 127.0.0.1:2200', 'channel ssh [ssh]'],
    ['tcp://ssh:a:b@:2200', 'tcp :2200', 'channel ssh [a:b]'],
    ['udp://dns@:53', 'udp :53', 'channel dns []'],
    ['tcp://dns@:53/udp', 'udp :53', 'channel dns []'],
    ['unix://ssh:pw@/run/a,b@x.sock', 'unix /run/a,b@x.sock', 'channel ssh [pw]'],
    ['tcp://ssh:%40%2F%3A%25%20%E4%BD%A0@:1', 'tcp :1', 'channel ssh [@/:% 你]'],
    ['tcp://ssh:密码，：@:1', 'tcp :1', 'channel ssh [密码，：]'],
    ['socks5://:1080', 'socks5 :1080', 'tunnel '],
    ['8080:db:1', 'tcp 127.0.0.1:8080', 'tcp db:1'],
    ['tcp://:1,tls://a:443', 'tcp :1', 'tls a:443'],
    ['tcp://:1,https://a', 'tcp :1', 'tls a:443'],
    ['tcp://:1,http://a', 'tcp :1', 'tcp a:80'],
    ['tcp://:1,channel://ssh:pw@', 'tcp :1', 'channel ssh [pw]'],
    ['udp://:1,channel://ssh@', 'udp :1', 'channel ssh []'],
    ['mixed://:1,tunnel://work:pw@', 'mixed :1', 'tunnel work [pw]'],
    [
      '{"Listen":{"Domain":"tcp","Addr":":1"},"Forward":{"Domain":"channel","Addr":"ssh","Password":"p w"}}',
      'tcp :1',
      'channel ssh [p w]',
    ],
    [
      '{"Listen":{"Domain":"socks5","Addr":":1"},"Forward":{"Domain":"tunnel","Addr":"a","Password":""}}',
      'socks5 :1',
      'tunnel a []',
    ],
  ],
  remote: [
    ['tcp://ssh:ssh@192.168.1.200:22', 'channel ssh [ssh]', 'tcp 192.168.1.200:22'],
    ['tcp://ssh:ssh@:22', 'channel ssh [ssh]', 'tcp 127.0.0.1:22'],
    ['udp://dns@[::1]:53', 'channel dns []', 'udp [::1]:53'],
    ['unix://x:y@/run/x.sock', 'channel x [y]', 'unix /run/x.sock'],
    ['tunnel://work_tunnel:password@', 'channel work_tunnel [password]', 'tunnel '],
    ['tunnel://work@/', 'channel work []', 'tunnel '],
    ['http://127.0.0.1:8080?mode=path&value=api', 'web /api', 'tcp 127.0.0.1:8080'],
    ['http://127.0.0.1:8080/api/?mode=path&value=api', 'web /api?base=/api/', 'tcp 127.0.0.1:8080'],
    ['http://127.0.0.1:8080?mode=domain&value=customwsp.com', 'web customwsp.com', 'tcp 127.0.0.1:8080'],
    [
      'http://127.0.0.1:8080/api/?value=customapi.com&mode=domain',
      'web customapi.com?base=/api/',
      'tcp 127.0.0.1:8080',
    ],
    ['http://:8080?mode=path&value=%2Fa%2Fb/', 'web /a/b', 'tcp 127.0.0.1:8080'],
    ['https://h?mode=path&value=x', 'web /x', 'tls h:443'],
    ['https://h:8443/y?verify=off&mode=path&value=x', 'web /x?base=/y', 'tls h:8443?verify=off'],
    ['tcp://127.0.0.1:5900?mode=path&value=vnc', 'ws /vnc', 'tcp 127.0.0.1:5900'],
    ['tcp://127.0.0.1:5900?mode=domain&value=vnc.example.com', 'ws vnc.example.com', 'tcp 127.0.0.1:5900'],
    ['unix:///run/x?mode=path&value=a', 'ws /a', 'unix /run/x'],
    ['9000:a:80', 'tcp 127.0.0.1:9000', 'tcp a:80'],
    ['web://x.com,http://127.0.0.1/base/', 'web x.com?base=/base/', 'tcp 127.0.0.1:80'],
    ['web:///p,https://a:1/b&c?verify=off', 'web /p?base=/b%26c', 'tls a:1?verify=off'],
    ['channel://a:pw@,tunnel://', 'channel a [pw]', 'tunnel '],
    ['socks5://:1080,tunnel://', 'socks5 :1080', 'tunnel '],
  ],
}

const BAD: Record<ShortUse, readonly (readonly [text: string, message: RegExp])[]> = {
  dynamic: [
    ['', /it is empty: write \[bind:\]port or socks5:/],
    ['abc', /"abc" has no port/],
    ['socks5://127.0.0.1', /"127\.0\.0\.1" has no port/],
    ['socks5://', /has no port/],
    ['socks5://:99999', /port 99999 is out of range \(0 to 65535\)/],
    ['socks5://work:hunter2', /the port is not a number \(is an @ missing/],
    ['socks5://:1080/x', /there is no path here/],
    ['socks5://:1080?mode=path&value=x', /mode is for what is offered with -R/],
    ['socks5://:1080?usr=a', /unknown option "usr": did you mean user\?/],
    ['socks5://:hunter2@:1', /it names no channel/],
    ['socks5://@:1', /it names no channel/],
    ['socks5://work:@:1', /the password of channel work is empty/],
    ['socks5://work:hun@ter2@:1', /an @ in a channel's name or password is written %40/],
    ['socks5://work:hun/ter2@:1', /a \/ in a channel's name or password is written %2F/],
    ['socks5://work:hun?ter2@:1', /a \? in a channel's name or password is written %3F/],
    ['socks5://work:hun#ter2@:1', /a # in a channel's name or password is written %23/],
    ['socks5://work:hunter2%@:1', /write %25/],
    ['socks5://wo rk:hunter2 hunter2@:1', /the name of a channel has letters, digits/],
    ['work:hunter2@:1080', /a channel needs the whole URL: write mixed:/],
    ['socks://:1080', /unknown scheme "socks": did you mean socks5\?/],
    ['ftp://:1080', /unknown scheme "ftp" \(known: socks5, http, mixed\)/],
    ['tcp://a:hunter2@:1', /tcp:\/\/ is for -L \(local\)/],
    ['tunnel://a:hunter2@', /tunnel:\/\/ is for -R \(remote\)/],
    ['socks5：//:1080', /a full-width "：" in it: write ":"/],
    ['socks5:／／:1080', /a full-width "／" in it: write "\/"/],
    ['socks5://work：hunter2@:1', /a full-width "：" in it/],
    ['socks5://work:hunter2＠:1', /a full-width "＠" in it: write "@"/],
    ['socks5://a\n:1', /it has a control character, or a line break/],
    [`socks5://${'a'.repeat(5000)}:1`, /longer than 4096/],
  ],
  local: [
    ['tcp://127.0.0.1:22', /it has one endpoint, and names no channel: write tcp:\/\/CHANNEL:PASSWORD@host:port/],
    ['tcp://ssh:hunter2', /names no channel/],
    ['unix:///run/x', /names no channel: write unix:\/\/CHANNEL:PASSWORD@\/path/],
    ['tcp://ssh:hunter2@127.0.0.1', /has no port/],
    ['tcp://ssh:hunter2@', /has no port/],
    ['tcp://:hunter2@:1', /names no channel/],
    ['tcp://ssh:hunter2@:1/x', /there is no path here: tcp goes to host:port/],
    ['tcp://ssh:hunter2@:1?mode=path&value=x', /mode and value are for who offers it, with -R/],
    ['unix://ssh:hunter2@run/x', /not absolute/],
    ['tunnel://a:hunter2@', /a tunnel is used with -D/],
    ['https://a:hunter2@:1', /https:\/\/ is for -R/],
    ['tpc://a:hunter2@:1', /unknown scheme "tpc": did you mean tcp\?/],
    ['tcp://:1，tcp://:2', /a full-width "，" in it: write ","/],
    ['tcp://:1,127.0.0.1:2', /it has one endpoint/],
    ['channel://a:hunter2@', /it has one endpoint/],
    ['tcp://:1,channel://ssh:hunter2', /Forward: the "@" is missing/],
    ['tcp://:1,channel://ssh', /Forward: channel ssh has no password with it/],
    ['tcp://:1,channel://ssh:hunter2@x', /Forward: nothing comes behind the "@"/],
    [
      'channel://a:hunter2@,tcp://:1',
      /Listen: domain channel cannot be listened on: tcp, udp, unix, socks5, http, mixed can/,
    ],
    ['tls://a:1,tcp://:1', /Listen: domain tls cannot be listened on/],
    ['web://x,tcp://:1', /Listen: domain web cannot be listened on/],
    ['tcp://:1,web://x', /Forward: domain web cannot be forwarded to/],
    ['tcp://:1,tunnel://', /tcp cannot be forwarded to tunnel: tcp carries a stream of bytes/],
    ['socks5://:1,tcp://:2', /socks5 cannot be forwarded to tcp: .*write tunnel:\/\/ for the other side/],
    ['socks5://:1,channel://a:hunter2@', /socks5 cannot be forwarded to channel: .*tunnel:\/\/CHANNEL:PASSWORD@/],
    ['tcp://:1,http://a/x', /Forward: there is no path here/],
    [
      '{"Listen":{"Domain":"tcp","Addr":":1"},"Forward":{"Domain":"tcp","Addr":":2","Password":"hunter2"}}',
      /Forward: "tcp" takes no password: channel and tunnel do/,
    ],
    [
      '{"Listen":{"Domain":"tcp","Addr":":1"},"Forward":{"Domain":"channel","Addr":"a","Pasword":"hunter2"}}',
      /unknown key "Forward\.Pasword": did you mean "Password"\?/,
    ],
    [
      '{"Listen":{"Domain":"tcp","Addr":":1"},"Forward":{"Domain":"channel","Addr":"a","Password":7}}',
      /Forward\.Password is not a string in quotes/,
    ],
    ['{"Password":"hunter2" "Listen":{}}', /malformed JSON at character 23: expected ',' or '}' there/],
    ['{Listen:{Domain:tcp,Addr::1},Forward:{Domain:channel,Addr:a:hunter2@}}', /the JSON has lost its quotes/],
    [
      '{"Listen":{"Domain":"unix","Addr":"/a@b"},"Forward":{"Domain":"x","Addr":"a","Password":"hunter2"}}',
      /Forward: unknown domain "x"/,
    ],
    ['{Listen:{Domain:unix,Addr:/a@b},Forward:{Password:hunter2}}', /the JSON has lost its quotes/],
    ['a:hunter2@b:c:d', /user information/],
  ],
  remote: [
    ['http://127.0.0.1:8080', /the mode is missing: write http:\/\/127\.0\.0\.1:8080\?mode=path&value=NAME/],
    ['http://h?mode=path', /the value is missing: write mode=path&value=NAME/],
    ['http://h?value=x', /the mode is missing/],
    ['http://h?', /unknown option "" behind the \?/],
    ['http://h?mode=path&value=', /the value is empty/],
    ['http://h?mode=path&value=/', /the value is empty/],
    ['http://h?mode=&value=x', /the mode is empty: write mode=path or mode=domain/],
    ['http://h?mode=pth&value=x', /unknown mode "pth": did you mean path\?/],
    ['http://h?mode=zzz&value=x', /unknown mode "zzz": path and domain are known/],
    ['http://h?mod=path&value=x', /unknown option "mod" behind the \?: did you mean mode\?/],
    ['http://h?mode=path&value=a&value=b', /value is given twice/],
    ['http://h?mode=path&value=%zz', /value has a % that is no escape/],
    ['http://h?mode=path&value=../x', /has a "\." or "\.\." in it/],
    ['http://h?mode=domain&value=a/b', /"a\/b" is not a domain/],
    ['http://h?mode=domain&value=a.com:80', /has a port: leave it out/],
    ['http://h:x?mode=path&value=x', /port "x" is not a number/],
    ['http://h?mode＝path&value=x', /a full-width "＝" in it: write "="/],
    ['http://a:hunter2@h:1?mode=path&value=x', /a channel is not for http: write tcp:/],
    ['https://h?mode=path&value=x&verfy=off', /unknown option "verfy": did you mean verify\?/],
    ['tcp://a:hunter2@h:1?mode=path&value=x', /a channel and mode= exclude each other/],
    ['tcp://h:1/x?mode=path&value=x', /there is no path here/],
    ['tcp://h?mode=path&value=x', /"h" has no port/],
    ['tcp://h:1', /names no channel: write tcp:\/\/CHANNEL:PASSWORD@host:port, tcp:.*mode=path&value=NAME/],
    ['tcp://:hunter2@h:1', /names no channel/],
    ['tcp://ssh:hunter2@h', /"h" has no port/],
    ['tcp://ssh:hunter2@h:0', /port 0 is out of range/],
    ['udp://h:1?mode=path&value=x', /udp cannot be offered at the web port/],
    ['tunnel://', /names no channel: write tunnel:\/\/CHANNEL:PASSWORD@, with the @/],
    ['tunnel://work:hunter2', /names no channel: .*with the @/],
    ['tunnel://work:hunter2@h:1', /nothing stands behind the @ of a tunnel/],
    ['tunnel://work:hunter2@?mode=path', /nothing stands behind the @ of a tunnel/],
    ['tunnel://wörk:hunter2@', /the name of a channel has letters, digits/],
    [`tunnel://work:${'hunter2'.repeat(40)}@`, /longer than 256 bytes/],
    ['socks5://:1', /socks5:\/\/ is for -D \(dynamic\): here are tcp, udp, unix, http, https, tunnel/],
    ['htp://h?mode=path&value=x', /unknown scheme "htp": did you mean http\?/],
    ['web:///a?base=/b/,http://h/c', /the base and the path of the target are both given/],
    ['tcp://:1,channel://a:hunter2@', /Forward: domain channel cannot be forwarded to/],
    ['web://x,tcp://ssh:hunter2@h:1', /Forward: user information/],
    ['web://x,udp://h:1', /web cannot be forwarded to udp/],
  ],
}

describe('one URL is a SPEC', () => {
  for (const use of ['dynamic', 'local', 'remote'] as const) {
    test(`for ${use}`, () => {
      for (const [text, listen, forward] of GOOD[use]) assert.deepEqual(halves(use, text), [listen, forward], text)
    })
  }

  test('and comes back as it was, when it is written and read again', () => {
    for (const use of ['local', 'remote'] as const) {
      for (const [text, listen, forward] of GOOD[use]) {
        assert.deepEqual(halves(use, formatSpec(take(use, text))), [listen, forward], text)
      }
    }
  })
})

describe('a wrong one is told in one line, without its password', () => {
  for (const use of ['dynamic', 'local', 'remote'] as const) {
    test(`for ${use}`, () => {
      for (const [text, message] of BAD[use]) {
        const check = (error: unknown): true => {
          assert.ok(error instanceof Error && 'code' in error, text)
          assert.equal(error.code, 'PROXY_ERR_SPEC', text)
          assert.match(error.message, message, text)
          assert.match(error.message, /^bad SPEC "[^\n]*$/, text)
          assert.doesNotMatch(error.message, /hun|ter2/, text)
          return true
        }
        assert.throws(() => take(use, text), check, text)
      }
    })
  }
})

/** What is wrong with a URL, and what the line says behind the URL. A pattern where the advice is still to be put right. */
type Wrong = readonly (readonly [text: string, says: string | RegExp])[]

const NO_PORT = '"" has no port: write host:port'
const HOST_ONLY = '"127.0.0.1" has no port: write host:port'
const NO_NUMBER = 'the port is not a number (is an @ missing behind CHANNEL:PASSWORD?)'
const AT = "an @ in a channel's name or password is written %40"
const EMPTY = 'the value is empty: it says what stands in the URL at the server'
const outOf = (first: number, port = 65536): string => `port ${port} is out of range (${first} to 65535)`
const noNumber = (first: number): string => `the port is missing: write a number (${first} to 65535)`
const empty = (name: string): string => `the password of channel ${name} is empty: write ${name}@ for one without`
const wholeUrl = 'a channel needs the whole URL: write mixed://CHANNEL:PASSWORD@127.0.0.1:1080'

/** -D: a proxy. */
function wrongProxy(scheme: string): Wrong {
  const noChannel = `it names no channel: write ${scheme}://CHANNEL:PASSWORD@[bind]:port`
  const forRemote = 'mode is for what is offered with -R (remote)'
  const together = 'user and password_file belong together: write ?user=NAME&password_file=PATH'
  const behind: Wrong = [
    ['', NO_PORT],
    ['127.0.0.1', HOST_ONLY],
    ['127.0.0.1:', noNumber(0)],
    ['work:hunter2@', NO_PORT],
    ['work:hunter2@127.0.0.1', HOST_ONLY],
    ['work:hunter2', NO_NUMBER],
    ['127.0.0.1:x', NO_NUMBER],
    [':65536', outOf(0)],
    ['work:hunter2@:65536', outOf(0)],
    [':1?mode=path', forRemote],
    [':1?mode=zzz&value=x', forRemote],
    [':1?value=', 'value is for what is offered with -R (remote)'],
    ['work:hunter2@:1?mode=path&value=x', forRemote],
    ['@:1', noChannel],
    [':hunter2@:1', noChannel],
    ['work:@:1', empty('work')],
    ['work:hun@ter2@:1', AT],
    [':1?user=', 'user is empty: write ?user=NAME&password_file=PATH'],
    [':1?user=a', together],
    [':1?password_file=/x', together],
    [':1/x', 'there is no path here: a proxy listens on [bind]:port'],
  ]
  return behind.map(([text, says]) => [`${scheme}://${text}`, says])
}

const WRONG_BARE: Wrong = [
  ['127.0.0.1', HOST_ONLY],
  ['127.0.0.1:', noNumber(0)],
  ['127.0.0.1:x', 'the port is not a number: write [bind:]port or socks5://[bind]:port'],
  ['work:hunter2', 'the port is not a number: write [bind:]port or socks5://[bind]:port'],
  ['65536', outOf(0)],
  ['127.0.0.1:65536', outOf(0)],
  ['work:hunter2@:1', wholeUrl],
  ['work@1080', wholeUrl],
  ['@:1', wholeUrl],
  ['1080?mode=path&value=x', '"1080" has no port: write :1080 or HOST:1080'],
]

/** -L and -R: a channel that is joined, or offered. */
function wrongChannel(scheme: string, use: 'local' | 'remote'): Wrong {
  const isPath = scheme === 'unix'
  const place = isPath ? '/run/x' : ':1'
  const first = use === 'local' ? 0 : 1
  const start = `it has one endpoint, and names no channel: write ${scheme}://CHANNEL:PASSWORD@${isPath ? '/path' : 'host:port'}`
  const noChannel = `${start}, or where to listen, a comma, and where to forward`
  // With -R it may be meant for the web port.
  const nothing = use === 'remote' && scheme !== 'tcp' ? /^it has one endpoint, and names no channel: / : noChannel
  const web = 'tcp://127.0.0.1:5900?mode=path&value=NAME'
  const nowhere = use === 'remote' && scheme === 'tcp' ? noChannel.replace(', or', `, ${web}, or`) : nothing
  const query =
    use === 'remote'
      ? 'a channel and mode= exclude each other: keep one'
      : 'there is nothing behind a ? here: mode and value are for who offers it, with -R (remote)'
  const behind: Wrong = [
    ['', nowhere],
    [isPath ? '/run/x' : '127.0.0.1:1', nowhere],
    ['ssh:hunter2', nowhere],
    [`@${place}`, noChannel],
    [`:hunter2@${place}`, noChannel],
    [`ssh:@${place}`, empty('ssh')],
    [`ssh:hun@ter2@${place}`, AT],
    [`ssh:hunter2@${place}?mode=path&value=x`, query],
    [`ssh:hunter2@${place}?mode=zzz`, query],
    [`ssh:hunter2@${place}?value=`, query],
  ]
  const paths: Wrong = [
    ['ssh:hunter2@', 'the path "" is not absolute: write unix:///path/to/socket'],
    ['ssh:hunter2@run/x', 'the path "run/x" is not absolute: write unix:///path/to/socket'],
    ['ssh:hunter2@/', 'the path "/" names a folder: add the name of the socket'],
  ]
  const ports: Wrong = [
    ['ssh:hunter2@', NO_PORT],
    ['ssh:hunter2@127.0.0.1', HOST_ONLY],
    ['ssh:hunter2@127.0.0.1:', noNumber(first)],
    ['ssh:hunter2@:65536', outOf(first)],
    ['ssh:hunter2@127.0.0.1:x', /^the port is not a number/],
    ['ssh:hunter2@:1/x', `there is no path here: ${scheme} goes to host:port`],
  ]
  return [...behind, ...(isPath ? paths : ports)].map(([text, says]) => [`${scheme}://${text}`, says])
}

const WRONG_TUNNEL: Wrong = [
  ['tunnel://', 'it names no channel: write tunnel://CHANNEL:PASSWORD@, with the @'],
  ['tunnel://work', 'it names no channel: write tunnel://CHANNEL:PASSWORD@, with the @'],
  ['tunnel://work:hunter2', 'it names no channel: write tunnel://CHANNEL:PASSWORD@, with the @'],
  ['tunnel://@', /^it names no channel: write tunnel:\/\/CHANNEL:PASSWORD@/],
  ['tunnel://:hunter2@', /^it names no channel: write tunnel:\/\/CHANNEL:PASSWORD@/],
  ['tunnel://work:@', empty('work')],
  ['tunnel://work:hun@ter2@', AT],
  ...[':1', 'h', '/x', '?mode=path&value=x', '?mode=zzz', '?value='].map(
    (text) =>
      [
        `tunnel://work:hunter2@${text}`,
        'nothing stands behind the @ of a tunnel: who uses it says where it goes',
      ] as const,
  ),
]

/** -R: a name of the server's web port. */
function wrongWeb(scheme: string): Wrong {
  const http = scheme === 'http' || scheme === 'https'
  const at = scheme === 'unix' ? '/run/x' : 'h:1'
  const example = `write ${scheme}://127.0.0.1:${http ? 8080 : 5900}?mode=path&value=NAME`
  // Of unix:// the advice shows a port.
  const missing = scheme === 'unix' ? /^the mode is missing: write unix:/ : `the mode is missing: ${example}`
  const channel = http
    ? 'a channel is not for http: write tcp://CHANNEL:PASSWORD@host:port, or leave the channel out'
    : 'a channel and mode= exclude each other: keep one'
  const behind: Wrong = [
    [`${at}?mode`, 'the mode is empty: write mode=path or mode=domain'],
    [`${at}?mode=&value=x`, 'the mode is empty: write mode=path or mode=domain'],
    [`${at}?value=x`, missing],
    [`${at}?mode=pth&value=x`, 'unknown mode "pth": did you mean path?'],
    [`${at}?mode=zzz&value=x`, 'unknown mode "zzz": path and domain are known'],
    [`${at}?mode=path`, 'the value is missing: write mode=path&value=NAME'],
    [`${at}?mode=domain`, 'the value is missing: write mode=domain&value=www.example.com'],
    [`${at}?mode=path&value`, EMPTY],
    [`${at}?mode=path&value=`, EMPTY],
    [`${at}?mode=path&value=%2F`, EMPTY],
    [`${at}?mode=domain&value=`, EMPTY],
    [`${at}?mode=domain&value=a/b`, 'value: "a/b" is not a domain: it has a / in it'],
    [`${at}?mode=domain&value=a:1`, '"a:1" has a port: leave it out, the server\'s web port is meant'],
    [`${at}?mode=path&value=a&value=b`, 'value is given twice'],
    [`${at}?mode=path&value=a&vlaue=b`, 'unknown option "vlaue" behind the ?: did you mean value?'],
    [`ssh:hunter2@${at}?mode=path&value=x`, channel],
    [`ssh:@${at}?mode=path&value=x`, empty('ssh')],
    [`@${at}?mode=path&value=x`, /^it (?:has one endpoint, and )?names no channel: /],
  ]
  const ports: Wrong = [
    ['h:?mode=path&value=x', noNumber(1)],
    ['h:0?mode=path&value=x', outOf(1, 0)],
    ['h:65536?mode=path&value=x', outOf(1)],
    ['ssh:hunter2?mode=path&value=x', http ? 'port "…" is not a number (1 to 65535)' : NO_NUMBER],
  ]
  const more: Wrong = http
    ? [...ports, ['h:1', `${missing}, or ?mode=domain&value=www.example.com`], ['ssh:hunter2@h:1', channel]]
    : scheme === 'tcp'
      ? [...ports, ['h?mode=path&value=x', '"h" has no port: write host:port'], ['?mode=path&value=x', NO_PORT]]
      : [['x?mode=path&value=x', 'the path "x" is not absolute: write unix:///path/to/socket']]
  return [...behind, ...more].map(([text, says]) => [`${scheme}://${text}`, says])
}

const PROXIES = ['socks5', 'http', 'mixed']
const STREAMS = ['tcp', 'udp', 'unix']
const WRONG: readonly (readonly [form: string, use: ShortUse, rows: Wrong])[] = [
  ...PROXIES.map((scheme) => [`-D ${scheme}://`, 'dynamic', wrongProxy(scheme)] as const),
  ['-D without a scheme', 'dynamic', WRONG_BARE],
  ...PROXIES.map((scheme) => [`-L ${scheme}://`, 'local', wrongProxy(scheme)] as const),
  ...STREAMS.map((scheme) => [`-L ${scheme}://`, 'local', wrongChannel(scheme, 'local')] as const),
  ...STREAMS.map((scheme) => [`-R ${scheme}://`, 'remote', wrongChannel(scheme, 'remote')] as const),
  ['-R tunnel://', 'remote', WRONG_TUNNEL],
  ...['http', 'https', 'tcp', 'unix'].map(
    (scheme) => [`-R ${scheme}:// with a mode`, 'remote', wrongWeb(scheme)] as const,
  ),
]

describe('of each form every mistake has its line:', () => {
  for (const [form, use, rows] of WRONG) {
    test(form, () => {
      for (const [text, says] of rows) {
        const line = complaint(use, text)
        assert.match(line, /^bad SPEC "[^"\n]*": [^\n]+$/, text)
        assert.doesNotMatch(line, /hun|ter2/, text)
        const said = line.slice(line.indexOf('": ') + 3)
        if (typeof says === 'string') assert.equal(said, says, text)
        else assert.match(said, says, text)
      }
    })
  }

  test('and a name without a password is none', () => {
    for (const scheme of PROXIES) {
      assert.deepEqual(halves('dynamic', `${scheme}://work@:1`), [`${scheme} :1`, 'tunnel work []'])
    }
    for (const [scheme, place, target] of [
      ['tcp', ':1', '127.0.0.1:1'],
      ['udp', ':1', '127.0.0.1:1'],
      ['unix', '/run/x', '/run/x'],
    ] as const) {
      assert.deepEqual(halves('local', `${scheme}://ssh@${place}`), [`${scheme} ${place}`, 'channel ssh []'])
      assert.deepEqual(halves('remote', `${scheme}://ssh@${place}`), ['channel ssh []', `${scheme} ${target}`])
    }
    assert.deepEqual(halves('remote', 'tunnel://work@'), ['channel work []', 'tunnel '])
  })

  test('but for http and https a missing port is 80 and 443, and a missing host this machine', () => {
    for (const [scheme, domain, port] of [
      ['http', 'tcp', 80],
      ['https', 'tls', 443],
    ] as const) {
      assert.deepEqual(halves('remote', `${scheme}://h?mode=path&value=x`), ['web /x', `${domain} h:${port}`])
      assert.deepEqual(halves('remote', `${scheme}://?mode=domain&value=x.y`), [
        'web x.y',
        `${domain} 127.0.0.1:${port}`,
      ])
    }
  })
})

/** What is said of a wrong one. */
function complaint(use: ShortUse, text: string): string {
  try {
    take(use, text)
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error, text)
    assert.equal(error.code, 'PROXY_ERR_SPEC', text)
    return error.message
  }
  return assert.fail(`${text} is taken`)
}

test('a SPEC as an object shows no password, however it is printed', async () => {
  const { inspect } = await import('node:util')
  const spec = take('local', 'tcp://ssh:hunter2@:1')
  for (const shown of [JSON.stringify(spec), inspect(spec, { depth: 9 }), `${passwordOf(spec.Forward)}`]) {
    assert.doesNotMatch(shown, /hunter2/)
  }
  assert.match(formatSpec(spec), /hunter2/)
})

test('one wrong character anywhere does not show the password', () => {
  const texts: readonly (readonly [before: string, after: string])[] = [
    ['socks5://work:', '@127.0.0.1:1080'],
    ['tcp://ssh:', '@127.0.0.1:22'],
    ['tunnel://work:', '@'],
    ['tcp://:1,channel://ssh:', '@'],
    ['http://ssh:', '@h:80?mode=path&value=x'],
  ]
  let wrong = 0
  for (const [before, after] of texts) {
    for (let i = 0; i <= before.length; i++) {
      for (const char of ['', ...':/@?#,{"% x0，＠：[]=']) {
        const text = `${before.slice(0, i)}${char}${before.slice(i + 1)}hunter2${after}`
        for (const use of ['dynamic', 'local', 'remote'] as const) {
          try {
            take(use, text)
          } catch (error) {
            wrong++
            assert.ok(error instanceof Error && !error.message.includes('hunter2'), `${use} ${text}`)
          }
        }
      }
    }
  }
  assert.ok(wrong > 1000)
})

test('a password of any characters comes through, percent-encoded', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), (password) => {
      const text = `tcp://ssh:${encodeURIComponent(password)}@127.0.0.1:22`
      for (const use of ['local', 'remote'] as const) {
        const spec = take(use, text)
        const at = use === 'local' ? spec.Forward : spec.Listen
        assert.equal(passwordOf(at)?.reveal(), password)
      }
    }),
    { numRuns: 200 },
  )
})

test('any text is a SPEC or rejected with the code, on one line', () => {
  const words = ['tcp', 'tunnel', 'http', 'socks5', '://', 'ssh', ':', '@', '/', '?', '&', 'mode=path', 'value=x', '80']
  const pieces = [...words, ',', '，', '%', '[', ']', '{', '"', '\n', '\0', '127.0.0.1', 'channel://', 'web://']
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(...pieces), { maxLength: 12 }),
      fc.constantFrom('dynamic' as const, 'local' as const, 'remote' as const),
      (parts, use) => {
        try {
          take(use, parts.join(''))
        } catch (error) {
          assert.ok(error instanceof Error && 'code' in error)
          assert.equal(error.code, 'PROXY_ERR_SPEC')
          assert.doesNotMatch(error.message, /[\n\0]/)
        }
      },
    ),
    { numRuns: 3000 },
  )
})

test('-D takes user and password file behind a bare port, too', () => {
  const { Listen } = parseShort('127.0.0.1:0?user=a&password_file=secret.txt', 'dynamic', { domains: DOMAINS })
  assert.deepEqual(Listen, { Domain: 'mixed', Addr: '127.0.0.1:0?user=a&password_file=secret.txt' })
})
