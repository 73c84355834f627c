import type { Suite } from '../../../lib/core/noise.ts'

/**
 * A session as it was recorded: what a raw side says, in plain, and what the real side answered. All texts are hex, with
 * blanks for people, and with words for what differs from run to run:
 *
 * | word         | stands for                                                                     |
 * | ------------ | ------------------------------------------------------------------------------ |
 * | `session`    | the 16 bytes that the acceptor chose                                           |
 * | `received`   | u64, how many counted records the raw side has received                        |
 * | `received-1` | one less: the last of them is sent again                                       |
 */
export interface Fixture {
  readonly protocol: 1
  readonly suite: Suite | 'key'
  /** The role of the raw side. */
  readonly raw: 'dialler' | 'acceptor'
  /** The first link, and those that resume. */
  readonly links: readonly RecordedLink[]
}

export interface RecordedLink {
  /** Preamble, payload 1 and payload 2. None where both sides had a key already. */
  readonly handshake?: readonly [preamble: string, payload1: string, payload2: string]
  /** Record 0 of either side. */
  readonly hello: { readonly raw: string; readonly real: string }
  readonly steps: readonly Step[]
}

export type Step =
  /** The raw side sends these frames as one record. */
  | { readonly raw: readonly string[] }
  /** Something that happens at the real side. */
  | { readonly act: Act }
  /** The real side answers with these frames, in this order. */
  | { readonly real: readonly string[] }

/**
 * `open`: it opens a sub-connection to the raw side. `come`: a user connects to what the raw side has asked it to listen on.
 * `write`, `end`, `destroy`: concern the sub-connection of the last one of these. `listen`: it asks the raw side to listen, and
 * sends back what comes in there. `unlisten` ends that. `close` ends the session.
 */
export type Act = 'open' | 'come' | 'write' | 'end' | 'destroy' | 'listen' | 'unlisten' | 'close'

export const FIXTURES: readonly {
  readonly name: string
  readonly suite: Suite | 'key'
  readonly raw: Fixture['raw']
}[] = (['NNpsk0', 'NKpsk0', 'key'] as const).flatMap((suite) =>
  (['dialler', 'acceptor'] as const).map((raw) => ({ name: `${suite}-raw-${raw}`, suite, raw })),
)
