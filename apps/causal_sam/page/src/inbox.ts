/** The inbox: cases with automatic masks that nobody works on, the most likely right first. */
import { signal } from '@preact/signals'
import { ask, casePath, follow, work } from './api'
import { cases, isCancelled, openCase, opened, refreshCases, report, run, say, step } from './state'
import { TEXTS } from './texts'
import type { InboxCase, InboxList, InboxProgress } from './types'

export const inbox = signal<InboxList | null>(null)
/** The inbox is shown in place of all cases. */
export const showsInbox = signal(false)

let following: AbortController | null = null

export function toggleInbox(): void {
  showsInbox.value = !showsInbox.value
  if (showsInbox.value) void watchSearch()
}

export async function refreshInbox(): Promise<void> {
  try {
    inbox.value = await ask<InboxList>('GET', 'inbox')
  } catch (error) {
    report(error)
  }
}

/** Lists the cases, and follows a search that runs: they appear as they are done. */
async function watchSearch(): Promise<void> {
  await refreshInbox()
  if (!inbox.value?.progress.is_running) return
  following?.abort()
  following = new AbortController()
  let done = inbox.value.progress.done
  const show = (progress: InboxProgress) => {
    if (inbox.value) inbox.value = { ...inbox.value, progress }
    if (progress.done !== done) void refreshInbox()
    done = progress.done
  }
  try {
    await follow<InboxProgress>('inbox/search/events', show, following.signal)
    await refreshInbox()
  } catch (error) {
    if (!(error instanceof DOMException)) report(error)
  }
}

export async function search(): Promise<void> {
  try {
    await ask<InboxProgress>('POST', 'inbox/search')
    await watchSearch()
  } catch (error) {
    report(error)
  }
}

export async function stopSearch(): Promise<void> {
  try {
    await ask<InboxProgress>('DELETE', 'inbox/search')
    await refreshInbox()
  } catch (error) {
    report(error)
  }
}

/** Opens a case with its automatic masks, as a step that can be undone. */
export async function openWithMasks(id: string): Promise<void> {
  await openCase(id)
  if (opened.value?.id !== id) return
  await step(TEXTS.status.automatic, 'inbox/open', {})
  await refreshInbox()
}

/** Accepts the automatic masks of a case as they are shown. */
export async function acceptMasks({ id, model }: InboxCase): Promise<void> {
  const answer = await run(TEXTS.status.accepting, async (tools) => {
    try {
      return await work<{ message: string }>('POST', casePath(id, 'inbox/accept'), { body: { model }, ...tools })
    } catch (error) {
      if (!isCancelled(error)) throw error
      await ask('GET', casePath(id, 'session')) // answered once the request before is done
      await refreshCases()
      if (!cases.value?.some((each) => each.id === id && each.state === 'accepted')) throw error
      return { message: TEXTS.status.tooLate }
    }
  })
  if (answer) say(answer.message)
  await Promise.all([refreshInbox(), refreshCases()])
  if (!answer || opened.value?.id !== id) return
  await openCase(id)
  say(answer.message)
}
