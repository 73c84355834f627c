import { pause } from '../../lib/core/backoff.ts'
import type { Random } from '../fuzz/random.ts'
import type { Cut } from '../helpers/faults/direction.ts'
import type { FaultRelay } from '../helpers/faults/fault-relay.ts'

const EVERY_MS = [1500, 5000] as const
/** How long nothing passes before a link ends, and how long nobody answers after. */
const SILENCE_MS = 300
const AWAY_MS = 800

/** Ends the link every few seconds, in one way or another, until `signal` fires. `onCut` hears of each. */
export async function cutAgainAndAgain(
  relay: FaultRelay,
  random: Random,
  signal: AbortSignal,
  onCut: () => void,
): Promise<void> {
  while (!signal.aborted) {
    await pause(random.between(...EVERY_MS), signal)
    if (signal.aborted) return
    const how: Cut = random.chance(0.5) ? 'fin' : 'rst'
    const kind = random.weighted({ both: 4, one: 2, silence: 1, away: 1 })
    if (kind === 'silence') {
      for (const link of relay.links) link.blackhole('both')
      await pause(SILENCE_MS, signal)
    }
    if (kind === 'away') relay.block('refuse')
    const links = relay.links.length
    if (kind === 'one') for (const link of relay.links) link.cut(how, random.chance(0.5) ? 'up' : 'down')
    else relay.cut(how)
    for (let left = links; left > 0; left--) onCut()
    if (kind === 'away') {
      await pause(AWAY_MS, signal)
      await relay.unblock()
    }
    if (kind === 'one') {
      // The side that was not told notices nothing until the other one is back, or gone for good.
      await pause(SILENCE_MS, signal)
    }
  }
}
