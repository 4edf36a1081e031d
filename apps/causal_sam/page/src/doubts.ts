/** Doubts of the server about the changes of a preview, which its user has to confirm. */
import type { NotePreview } from './types'

/** Doubts about all acts of a note together, which the server tells in the message alone. */
const DOUBT_IN_ALL = /In all, [^:]+? would (?:gain|lose|take) .+?% of (?:it|its [\d.]+ ml)\./g

/** Why the changes of a preview are larger, or elsewhere, than is plausible; and the rest of what the server says. */
export function doubtsOf({ effects, message }: Pick<NotePreview, 'effects' | 'message'>): {
  doubts: string[]
  rest: string
} {
  const ofActs = effects.map(({ doubt }) => doubt).filter((doubt) => typeof doubt === 'string')
  const doubts = [...new Set([...ofActs, ...(message.match(DOUBT_IN_ALL) ?? [])])]
  const rest = doubts.reduce((text, doubt) => text.replace(doubt, ''), message)
  return { doubts, rest: rest.replace(/\s+/g, ' ').trim() }
}
