/** Acceptance of the labels, with a look at small parts that lie apart from the rest of theirs. */
import { computed, effect, signal } from '@preact/signals'
import { casePath, work } from './api'
import { cases, opened, run, say, session, step, viewer } from './state'
import { TEXTS } from './texts'
import type { StrayParts, StrayPartsList } from './types'

/** Small parts to decide about before the labels are accepted; null while nothing is accepted. */
export const stray = signal<StrayParts[] | null>(null)

/** Whether the accepted label of the case is what is shown: nothing has changed since, and no label was emptied. */
export const isAccepted = computed(() => {
  const labels = (session.value?.labels ?? []).filter(({ volume_ml }) => volume_ml > 0)
  const saved = cases.value?.find(({ id }) => id === opened.value?.id)?.labels ?? []
  return saved.length > 0 && saved.length === labels.length && labels.every(({ source }) => source === 'accepted')
})

// Whatever else changes the masks ends the question.
effect(() => {
  void session.value
  stray.value = null
})

/** Accepts all labels; asks first if some have stray parts. Asked again, it accepts them as they are. */
export async function accept(): Promise<void> {
  const id = opened.value?.id
  if (!id || !session.value?.labels.length) return
  if (isAccepted.value) return say(TEXTS.accept.unchanged)
  if (stray.value) return acceptAsIs()
  const path = casePath(id, 'stray-parts')
  const found = await run(TEXTS.status.lookingForParts, (tools) => work<StrayPartsList>('GET', path, tools))
  if (!found || opened.value?.id !== id) return
  if (!found.labels.length) return acceptAsIs()
  stray.value = found.labels
  say(TEXTS.stray.found)
}

export async function acceptAsIs(): Promise<void> {
  stray.value = null
  await step(TEXTS.status.accepting, 'accept', {})
}

export async function removeAndAccept(): Promise<void> {
  const labels = stray.value?.map(({ label }) => label) ?? []
  if (await step(TEXTS.status.removing, 'stray-parts/remove', { labels })) await acceptAsIs()
}

/** Goes to the largest of a label's stray parts. */
export function showStray({ place }: StrayParts): void {
  viewer?.moveTo(viewer.grid!.fromFile(place))
}

export function cancelAcceptance(): void {
  if (!stray.value) return
  stray.value = null
  say('')
}
