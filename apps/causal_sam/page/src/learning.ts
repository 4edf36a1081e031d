/** Learning from accepted labels: the update that runs, and the versions of the adapters. */
import { signal } from '@preact/signals'
import { ask, follow } from './api'
import { report } from './state'
import type { Training, Version } from './types'

export const training = signal<Training | null>(null)
export const versions = signal<Version[]>([])

let following: AbortController | null = null

/** Looks at the versions, and follows an update that runs. */
export async function watchLearning(): Promise<void> {
  try {
    versions.value = await ask<Version[]>('GET', 'versions')
    following?.abort()
    following = new AbortController()
    await follow<Training>('training/events', (now) => (training.value = now), following.signal)
    versions.value = await ask<Version[]>('GET', 'versions')
  } catch (error) {
    if (!(error instanceof DOMException)) report(error)
  }
}

export async function startLearning(minutes: number): Promise<void> {
  try {
    training.value = await ask<Training>('POST', 'training', { body: { options: { minutes } } })
    await watchLearning()
  } catch (error) {
    report(error)
  }
}

export async function stopLearning(): Promise<void> {
  try {
    training.value = await ask<Training>('DELETE', 'training')
  } catch (error) {
    report(error)
  }
}

export async function rollBack(number: number): Promise<void> {
  try {
    versions.value = await ask<Version[]>('POST', `versions/${number}/rollback`)
  } catch (error) {
    report(error)
  }
}
