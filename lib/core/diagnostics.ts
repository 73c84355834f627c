import { type Channel, channel } from 'node:diagnostics_channel'

/**
 * What the core publishes on `node:diagnostics_channel`. Nothing is built where nobody subscribes, and the core itself
 * logs nothing.
 *
 * | channel              | message                                        |
 * | -------------------- | ---------------------------------------------- |
 * | symport:main:open    | `{ main }`                                     |
 * | symport:main:pause   | `{ main, error }` its link is lost             |
 * | symport:main:resume  | `{ main }` it goes on with another link        |
 * | symport:main:close   | `{ main, error }`                              |
 * | symport:sub:open     | `{ proxy, sub, to }` it has connected          |
 * | symport:sub:close    | `{ main, sub }` its id is free again           |
 * | symport:refused      | `{ proxy, error, request, by: 'here' \| 'peer' }` |
 * | symport:frame        | a `FrameSeen`: a frame other than data         |
 * | symport:data         | a `DataSeen`                                   |
 * | symport:record       | a `RecordSeen`                                 |
 *
 * The last three say what goes over the wire, never what is in it: see `wire-tap.ts`.
 */
export interface Diagnostics {
  readonly mainOpen: Channel
  readonly mainPause: Channel
  readonly mainResume: Channel
  readonly mainClose: Channel
  readonly subOpen: Channel
  readonly subClose: Channel
  readonly refused: Channel
  readonly frame: Channel
  readonly data: Channel
  readonly record: Channel
}

export const diagnostics: Diagnostics = {
  mainOpen: channel('symport:main:open'),
  mainPause: channel('symport:main:pause'),
  mainResume: channel('symport:main:resume'),
  mainClose: channel('symport:main:close'),
  subOpen: channel('symport:sub:open'),
  subClose: channel('symport:sub:close'),
  refused: channel('symport:refused'),
  frame: channel('symport:frame'),
  data: channel('symport:data'),
  record: channel('symport:record'),
}
