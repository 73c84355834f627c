import type { HubEvent, OnEvent } from './events.ts'

/** Passes on what happens to whoever listens at the time. What a listener throws is its own affair. */
export class Feed {
  readonly #listeners = new Set<OnEvent>()

  readonly tell = (event: HubEvent): void => {
    for (const listener of [...this.#listeners]) listener(event)
  }

  /** Until the returned function is called. */
  subscribe(listener: OnEvent): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
