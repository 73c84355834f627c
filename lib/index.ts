/** symport as a library: `import { Proxy, connect, Acceptor } from 'symport'`. */
export { type AttachOptions, attach } from './attach.ts'
export * from './core/index.ts'
export { createNode, type NodeOptions, type SymportNode } from './create-node.ts'
export { createServer, type ServerOptions, type SymportServer } from './create-server.ts'
export { type Channels, channel, createChannels, tunnel } from './domains/channel.ts'
export type { ChannelEndpoint } from './domains/channel-address.ts'
export { Hidden } from './domains/hidden.ts'
export { httpProxy } from './domains/http-proxy.ts'
export type { HttpRequest, HttpSettings } from './domains/http-settings.ts'
export { mixed } from './domains/mixed.ts'
export { parseListenerFlag, parseShort, type ShortUse } from './domains/short-spec.ts'
export { type DynamicOptions, socks5 } from './domains/socks5.ts'
export { formatSpec, parseSpec, type Spec } from './domains/spec.ts'
export { type TcpOptions, tcp } from './domains/tcp.ts'
export { type TlsOptions, tls } from './domains/tls.ts'
export { createTlsNames, type TlsNames, type TlsNamesOptions } from './domains/tls-names.ts'
export { type UdpOptions, udp } from './domains/udp.ts'
export { type UnixOptions, unix } from './domains/unix.ts'
export { createWeb, type Web, type WebOptions } from './domains/web.ts'
export { ChannelNames } from './hub/channel-names.ts'
export { channelRelay } from './hub/channels.ts'
export type { OnDuplicate } from './hub/duplicates.ts'
export type { Connected, HubEvent, OnEvent } from './hub/events.ts'
export { Feed } from './hub/feed.ts'
export { Identities } from './hub/identities.ts'
export type { NodeLimits, Usage } from './hub/limits.ts'
export type { Patch } from './hub/merge-patch.ts'
export type * from './hub/operations.ts'
export { isReservedHost, type PublicPlace, Publisher, type PublisherOptions } from './hub/publisher.ts'
export { Statistics } from './hub/statistics.ts'
export { NodeOperator } from './node-operator.ts'
export { Operator } from './operator.ts'
export { type NamePattern, type NameRules, type OwnNames, parseNamePattern } from './policy/names.ts'
export { type Pattern, type PortRange, parsePattern, parsePortRanges } from './policy/patterns.ts'
export { createPolicy, type PolicyOptions } from './policy/policy.ts'
export { tunnelPolicy, wspPolicy } from './policy/reach.ts'
export type { FlowLimits, LimitKind, Refusals, TrafficLimits } from './policy/traffic-limits.ts'
export { parseCa, parsePin, type Verify } from './sockets/verify.ts'
export {
  type Acme,
  type AcmeDns,
  type AcmeEvent,
  type AcmeOptions,
  type DnsRecords,
  hookRecords,
  openAcme,
} from './store/acme.ts'
export {
  type CertificateOptions,
  type Certificates,
  chainCertificates,
  loadCertificates,
} from './store/certificates.ts'
export { StateFolder } from './store/state-folder.ts'
export { acmeRequests, acmeRoute, isAcmeHello } from './transports/acme-answers.ts'
export { type InsideOptions, listenInside, type Names } from './transports/http-server.ts'
export { type ClientHello, listenOnePort, type OnePortOptions, type RoutedFrom } from './transports/one-port.ts'
export { dialTcp, listenTcp, type TcpAddress } from './transports/tcp.ts'
export { dialTls, type TlsDialOptions, type TlsTarget } from './transports/tls.ts'
export type { LinkListener } from './transports/transport.ts'
export { dialUnix, listenUnix } from './transports/unix.ts'
export { dialTcpVia, type ProxyTarget, parseVia, type Via, viaFromEnvironment } from './transports/via-proxy.ts'
export { dialWebSocket } from './transports/websocket.ts'
export { WEBSOCKET_SETTINGS, WebSocketLink, type WebSocketLinkOptions } from './transports/websocket-link.ts'
