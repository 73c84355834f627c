import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream'
import { cleanEnvironment } from './child.ts'
import { sha256, writeRandomFile } from './net.ts'
import type { Stage } from './stage.ts'

const MIB = 1024 * 1024
/** Longer than any list of headers that git's own CGI writes. */
const MAX_HEAD = 16_384

export interface GitServer {
  /** On 127.0.0.1; the repository is `/repo.git`. */
  readonly port: number
  /** The last commit that it has. */
  head(): Promise<string>
}

/** git's own HTTP server, which is a CGI program, with one repository that anybody may write to. */
export async function startGitServer(stage: Stage, git: string): Promise<GitServer> {
  const repository = stage.path('git', 'repo.git')
  await stage.must(git, ['init', '--quiet', '--bare', '--initial-branch=main', repository], { env: environment(stage) })
  const running = new Set<ChildProcessWithoutNullStreams>()
  const server = createServer((request, response) => {
    const { pathname, search } = new URL(request.url ?? '/', 'http://localhost')
    const { headers } = request
    const env = environment(stage, {
      GIT_PROJECT_ROOT: stage.path('git'),
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_PROTOCOL: String(headers['git-protocol'] ?? ''),
      HTTP_CONTENT_ENCODING: headers['content-encoding'],
      CONTENT_LENGTH: headers['content-length'],
      CONTENT_TYPE: headers['content-type'],
      PATH_INFO: pathname,
      QUERY_STRING: search.slice(1),
      REMOTE_USER: 'somebody',
      REQUEST_METHOD: request.method,
    })
    const child = spawn(git, ['http-backend'], { env })
    running.add(child)
    child.on('close', () => running.delete(child))
    serve(child, request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(async () => {
    server.closeAllConnections()
    server.close()
    await Promise.all(
      [...running].map(async (child) => {
        child.kill('SIGKILL')
        await once(child, 'close')
      }),
    )
  })
  return {
    port: (server.address() as AddressInfo).port,
    head: () => stage.must(git, ['-C', repository, 'rev-parse', 'main'], { env: environment(stage) }),
  }
}

/** A request as a CGI program takes it, and its answer as HTTP has it. */
function serve(child: ChildProcessWithoutNullStreams, request: IncomingMessage, response: ServerResponse): void {
  pipeline(request, child.stdin, () => {})
  let head = Buffer.alloc(0)
  const read = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0 && head.length < MAX_HEAD) return
    child.stdout.off('data', read)
    for (const line of head.toString('latin1', 0, Math.max(end, 0)).split('\r\n')) {
      const [name = '', value = ''] = line.split(/: (.*)/)
      if (name === 'Status') response.statusCode = Number.parseInt(value, 10)
      else response.setHeader(name, value)
    }
    response.write(head.subarray(end + 4))
    pipeline(child.stdout, response, () => {})
  }
  child.stdout.on('data', read)
}

/** Nothing of the settings of whoever runs the tests, and no proxy but the one that a test names. */
function environment(stage: Stage, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const names = ['AUTHOR', 'COMMITTER']
  const who = names.flatMap((name) => [
    [`GIT_${name}_NAME`, 'Somebody'],
    [`GIT_${name}_EMAIL`, 'somebody@localhost'],
  ])
  const settings = {
    HOME: stage.folder,
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
  }
  return cleanEnvironment({ ...settings, no_proxy: '', NO_PROXY: '', ...Object.fromEntries(who), ...more })
}

/**
 * Pushes a commit with a file of some MiB over a proxy, if there is one, and clones it again; throws unless every byte
 * and the commit are there.
 */
export async function pushAndClone(
  stage: Stage,
  git: string,
  options: { server: GitServer; url: string; proxy?: string },
): Promise<void> {
  const { server, url, proxy } = options
  const [here, copy] = [stage.path('git', crypto.randomUUID()), stage.path('git', crypto.randomUUID())]
  const run = (...args: string[]): Promise<string> =>
    stage.must(git, [...(proxy === undefined ? [] : ['-c', `http.proxy=${proxy}`]), ...args], {
      env: environment(stage),
    })
  await run('init', '--quiet', '--initial-branch=main', here)
  const expected = writeRandomFile(`${here}/large`, 5 * MIB)
  writeFileSync(`${here}/small`, 'a line\n')
  await run('-C', here, 'add', '.')
  await run('-C', here, 'commit', '--quiet', '--message', 'Two files')
  await run('-C', here, 'push', '--quiet', '--force', url, 'main')
  const commit = await run('-C', here, 'rev-parse', 'main')
  if ((await server.head()) !== commit) throw new Error('the push has not arrived')
  await run('clone', '--quiet', url, copy)
  if ((await run('-C', copy, 'rev-parse', 'HEAD')) !== commit) throw new Error('the clone has another commit')
  if ((await sha256(`${copy}/large`)) !== expected) throw new Error('the clone has other bytes')
}
