import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { ask, casePath, shownUser } from '../api'
import { opened, report, session } from '../state'
import { TEXTS } from '../texts'
import type { NoteEntry } from '../types'

/** The notes on the open case by all users, the latest first. */
export function PastNotes() {
  const notes = useSignal<NoteEntry[]>([])
  const isOpen = useSignal(false)
  const id = opened.value?.id
  const steps = session.value // each step may add or undo a note
  useEffect(() => {
    notes.value = id === undefined ? [] : notes.value
    if (id !== undefined && isOpen.value)
      ask<NoteEntry[]>('GET', casePath(id, 'notes')).then((found) => (notes.value = found.reverse()), report)
  }, [id, steps, isOpen.value])
  if (id === undefined) return null
  return (
    <section aria-labelledby="past">
      <details onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
        <summary>
          <h2 id="past">{TEXTS.note.past}</h2>
        </summary>
        {!notes.value.length && <p>{TEXTS.note.noPast}</p>}
        <ol class="past">
          {notes.value.map((note) => (
            <Entry key={note.time} note={note} />
          ))}
        </ol>
      </details>
    </section>
  )
}

function Entry({ note: { note, user, time, act, answer, effects, is_undone } }: { note: NoteEntry }) {
  const state = act === 'refused' ? TEXTS.note.refused : is_undone ? TEXTS.note.undone : ''
  const when = new Date(time).toLocaleString(undefined, { dateStyle: 'short', timeStyle: 'short' })
  return (
    <li class={state ? 'undone' : ''}>
      <strong>{note}</strong>
      <small>
        {TEXTS.note.by(shownUser(user ?? ''), when)} {state && `· ${state}`}
      </small>
      {act === 'refused' ? (
        <p>{answer}</p>
      ) : (
        effects.map((effect, n) => (
          <p key={n}>
            {String(effect.label)} <span class="gained">{Number(effect.gained_ml) > 0 && TEXTS.note.gained(Number(effect.gained_ml))}</span>{' '}
            <span class="lost">{Number(effect.lost_ml) > 0 && TEXTS.note.lost(Number(effect.lost_ml))}</span>
          </p>
        ))
      )}
    </li>
  )
}
