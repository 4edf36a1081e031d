/** The server: routes under `api/`, and the sign-in of MONAI Label. */
import { eventsOf } from './events'
import { TEXTS } from './texts'
import type { Refused } from './types'

const ROOT = new URL('api/', document.baseURI)
const SIGN_IN = new URL('../auth/token', document.baseURI)
const TOKEN = 'causal-sam-token'
const USER = 'causal-sam-user'

/** A question of the server about a note, and the readings of the note to choose from, if there are any. */
export interface Question {
  text: string
  choices: readonly Refused['choices'][number][]
}

/** A refusal of the server, with its sentence. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    sentence: string,
    /** The question, if the server asks one. */
    readonly question: Question | null = null,
  ) {
    super(sentence)
  }

  static of(status: number, { detail, question, choices }: Partial<Refused>): Refusal {
    return new Refusal(status, detail ?? '', question ? { text: question, choices: choices ?? [] } : null)
  }
}

/** Whether masks belong to a user who has signed in, and not to a name that anybody can give. */
export function isSignedIn(): boolean {
  return sessionStorage.getItem(TOKEN) !== null
}

/** The name of a user without what the server puts before it: how it knows them. */
export function shownUser(user: string): string {
  return user.replace(/^.*(client|user|address) /, '')
}

/** The name that tells this user apart from others at the same network address. */
export function userName(): string {
  let name = localStorage.getItem(USER)
  if (!name) {
    name = `user-${Math.random().toString(36).slice(2, 6)}`
    localStorage.setItem(USER, name)
  }
  return name
}

export function setUserName(name: string): void {
  localStorage.setItem(USER, name)
}

interface Options {
  body?: unknown
  signal?: AbortSignal
  onProgress?: (slices: number) => void
  /** Called with the seconds that the model worked, where the server says so. */
  onTiming?: (model: number) => void
}

async function send(method: string, path: string, accept: string, { body, signal }: Options): Promise<Response> {
  const url = new URL(path, ROOT)
  url.searchParams.set('client_id', userName())
  const headers: Record<string, string> = { accept }
  const token = sessionStorage.getItem(TOKEN)
  if (token) headers.authorization = `Bearer ${token}`
  if (body !== undefined) headers['content-type'] = 'application/json'
  const response = await fetch(url, { method, headers, signal, body: body === undefined ? null : JSON.stringify(body) })
  if (!response.ok) throw await refusalOf(response)
  return response
}

async function refusalOf(response: Response): Promise<Refusal> {
  const body = (await response.json().catch(() => ({}))) as Partial<Refused>
  return Refusal.of(response.status, { detail: response.statusText, ...body })
}

/** Asks for JSON. */
export async function ask<T>(method: string, path: string, options: Options = {}): Promise<T> {
  return (await (await send(method, path, 'application/json', options)).json()) as T
}

/** Asks for a file, and reports how much of it is here. */
export async function load(
  path: string,
  signal?: AbortSignal,
  onProgress?: (bytes: number, all: number) => void,
): Promise<ArrayBuffer> {
  const response = await send('GET', path, '*/*', { signal })
  const all = Number(response.headers.get('content-length'))
  if (!onProgress || !all || response.headers.has('content-encoding')) return response.arrayBuffer()
  const file = new Uint8Array(all)
  const reader = response.body!.getReader()
  for (let bytes = 0; ; onProgress(bytes, all)) {
    const { done, value } = await reader.read()
    if (done) return file.buffer
    file.set(value, bytes)
    bytes += value.length
  }
}

/** Asks for work that may take long, and reports its progress. */
export async function work<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, 'text/event-stream', options)
  let answer: T | null = null
  for await (const { name, data } of eventsOf(response.body!)) {
    if (name === 'progress') options.onProgress?.((data as { slices: number }).slices)
    if (name === 'timing') options.onTiming?.((data as { model: number }).model)
    if (name === 'answer') answer = data as T
    if (name === 'error') {
      const body = data as Partial<Refused> & { status: number }
      throw Refusal.of(body.status, body)
    }
  }
  if (answer === null) throw new Refusal(0, TEXTS.status.broken)
  return answer
}

/** Follows a stream of one kind of event until it ends. */
export async function follow<T>(path: string, onEvent: (data: T) => void, signal: AbortSignal): Promise<void> {
  const response = await send('GET', path, 'text/event-stream', { signal })
  for await (const { data } of eventsOf(response.body!)) onEvent(data as T)
}

/** Tells whether somebody has signed in here, though perhaps for too short a time. */
export const hasSignedIn = (): boolean => sessionStorage.getItem(TOKEN) !== null

/** Signs in with the user's name and password. */
export async function signIn(username: string, password: string): Promise<void> {
  const response = await fetch(SIGN_IN, { method: 'POST', body: new URLSearchParams({ username, password }) })
  if (!response.ok) throw await refusalOf(response)
  const { access_token } = (await response.json()) as { access_token: string }
  sessionStorage.setItem(TOKEN, access_token)
}

export const casePath = (id: string, rest: string): string => `cases/${encodeURIComponent(id)}/${rest}`
