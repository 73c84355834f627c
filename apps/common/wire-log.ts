import type { Channel } from 'node:diagnostics_channel'
import type { Logger } from 'pino'
import {
  type DataSeen,
  diagnostics,
  type FrameSeen,
  type MainConnection,
  type ProxyError,
  type RecordSeen,
  type Way,
} from '../../lib/core/index.ts'

type Line = readonly [Channel, (message: unknown) => void]

/**
 * What goes over the wire, as log lines: at `debug` links and control frames, at `trace` all frames and records. It
 * follows the level of `log` when that changes, and listens for nothing that would not be written.
 */
export function logWire(log: Logger): void {
  const parts = [
    { level: 'debug', lines: linesAtDebug(log), heard: false },
    { level: 'trace', lines: linesAtTrace(log), heard: false },
  ]
  const follow = (): void => {
    for (const part of parts) {
      const wanted = log.isLevelEnabled(part.level)
      if (wanted === part.heard) continue
      part.heard = wanted
      for (const [channel, write] of part.lines) {
        if (wanted) channel.subscribe(write)
        else channel.unsubscribe(write)
      }
    }
  }
  follow()
  log.on('level-change', follow)
}

function linesAtDebug(log: Logger): Line[] {
  const about = ({ main, error }: { main: MainConnection; error?: ProxyError }): Record<string, unknown> => ({
    address: main.remote,
    transport: main.transport,
    ...(error && { code: error.code }),
  })
  return [
    line<{ main: MainConnection }>(diagnostics.mainOpen, (it) => log.debug(about(it), 'a main connection has begun')),
    line<{ main: MainConnection; error: ProxyError }>(diagnostics.mainPause, (it) =>
      log.debug(about(it), 'a main connection has lost its link'),
    ),
    line<{ main: MainConnection }>(diagnostics.mainResume, (it) =>
      log.debug(about(it), 'a main connection goes on with another link'),
    ),
    line<{ main: MainConnection; error: ProxyError }>(diagnostics.mainClose, (it) =>
      log.debug(about(it), 'a main connection is over'),
    ),
    line<FrameSeen>(diagnostics.frame, ({ via, sent, type, ...facts }) =>
      log.debug({ ...at(via), ...facts }, `${sent ? 'sent' : 'received'} ${type}`),
    ),
  ]
}

function linesAtTrace(log: Logger): Line[] {
  return [
    line<DataSeen>(diagnostics.data, ({ via, sent, id, length }) =>
      log.trace({ ...at(via), id, length }, sent ? 'sent data' : 'received data'),
    ),
    line<RecordSeen>(diagnostics.record, ({ via, sent, number, length }) =>
      log.trace({ ...at(via), record: number, length }, sent ? 'sent a record' : 'received a record'),
    ),
  ]
}

/** What the core publishes on each channel stands in `lib/core/diagnostics.ts`. */
function line<Message>(channel: Channel, write: (message: Message) => void): Line {
  return [channel, (message) => write(message as Message)]
}

function at({ remote }: Way): { address: string | undefined } {
  return { address: remote }
}
