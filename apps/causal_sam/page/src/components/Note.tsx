import type { RefObject } from 'preact'
import { useState } from 'preact/hooks'
import {
  confirmNote,
  endPreview,
  labelOf,
  opened,
  preview,
  previewedRule,
  previewNote,
  question,
  showChange,
} from '../state'
import { TEXTS } from '../texts'
import { PastNotes } from './PastNotes'

export function Note({ field }: { field: RefObject<HTMLTextAreaElement | null> }) {
  const [note, setNote] = useState('')
  const send = () => note.trim() && void previewNote(note.trim())
  return (
    <section aria-labelledby="note">
      <h2 id="note">{TEXTS.note.heading}</h2>
      <textarea
        ref={field}
        rows={2}
        maxLength={1000}
        aria-label={TEXTS.note.label}
        placeholder={TEXTS.note.placeholder}
        value={note}
        onInput={(event) => {
          setNote(event.currentTarget.value)
          endPreview()
        }}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey) return
          event.preventDefault()
          send()
        }}
      />
      <div class="line">
        {!note && (
          <ul class="examples">
            {TEXTS.note.examples.map((example) => (
              <li key={example}>
                <button class="link" aria-label={TEXTS.note.example(example)} onClick={() => setNote(example)}>
                  {example}
                </button>
              </li>
            ))}
          </ul>
        )}
        {note && !(preview.value && !previewedRule.value) && (
          <button class="main" disabled={!opened.value} onClick={send}>
            {TEXTS.note.preview}
          </button>
        )}
      </div>
      {question.value && (
        <div class="question" role="alert">
          <strong>{TEXTS.note.question}</strong>
          <p>{question.value}</p>
          <p>{TEXTS.note.answer}</p>
        </div>
      )}
      {preview.value && !previewedRule.value && (
        <Plan
          onConfirm={() => {
            void confirmNote(note.trim())
            setNote('')
          }}
        />
      )}
      <PastNotes />
    </section>
  )
}

/** The plan of the preview, to be confirmed. */
export function Plan({ onConfirm }: { onConfirm: () => void }) {
  const { sentences, changes, message } = preview.value!
  return (
    <div class="plan" role="group" aria-label={TEXTS.note.plan}>
      <ol>
        {sentences.map((sentence) => (
          <li key={sentence}>{sentence}</li>
        ))}
      </ol>
      <table>
        <tbody>
          {changes.map(({ label, gained_ml, lost_ml }) => (
            <tr key={label}>
              <th scope="row">{label}</th>
              <td>
                {gained_ml > 0 && <span class="gained">{TEXTS.note.gained(gained_ml)}</span>}
                {gained_ml > 0 && lost_ml > 0 && ', '}
                {lost_ml > 0 && <span class="lost">{TEXTS.note.lost(lost_ml)}</span>}{' '}
                {TEXTS.note.of(labelOf(label)?.volume_ml ?? 0)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>{changes.length ? message : `${TEXTS.note.nothing} ${message}`}</p>
      <div class="line">
        <button class="main" disabled={!changes.length} onClick={onConfirm}>
          {TEXTS.note.confirm}
        </button>
        <button disabled={!changes.length} title={TEXTS.note.showHint} onClick={showChange}>
          {TEXTS.note.show}
        </button>
        <button onClick={endPreview}>{TEXTS.note.cancel}</button>
      </div>
    </div>
  )
}
