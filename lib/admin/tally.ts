import type { HubEvent } from '../hub/events.ts'

/** More codes than there are; beyond them it is `other`. */
const MOST_CODES = 64

/** What only events tell, counted from the start on for the metrics. */
export class Tally {
  readonly rejected: Map<string, number> = new Map()
  connected = 0
  resumed = 0

  readonly count = (event: HubEvent): void => {
    if (event.type === 'connected') this.connected++
    else if (event.type === 'resumed') this.resumed++
    else if (event.type === 'rejected') {
      const { code } = event.reason
      const key = this.rejected.has(code) || this.rejected.size < MOST_CODES ? code : 'other'
      this.rejected.set(key, (this.rejected.get(key) ?? 0) + 1)
    }
  }
}
