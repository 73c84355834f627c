/** Up is from the side that connects to the side that accepts. */
export type Direction = 'up' | 'down'
export type Ways = Direction | 'both'

/** In order, or not. */
export type Cut = 'fin' | 'rst'

export function directions(ways: Ways): readonly Direction[] {
  return ways === 'both' ? ['up', 'down'] : [ways]
}
