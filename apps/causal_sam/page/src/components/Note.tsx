import type { RefObject } from 'preact'
import { useRef, useState } from 'preact/hooks'
import type { Question } from '../api'
import { confirmNote, noteEdited, previewNote } from '../notes'
import { current, labelOf, opened, preview, previewedRule, question } from '../state'
import { TEXTS } from '../texts'
import type { Plan as NotePlan } from '../types'
import { Plan } from './Plan'
import { useIntoView } from './scrolling'
import { views } from './Views'

export function Note({ field }: { field: RefObject<HTMLTextAreaElement | null> }) {
  const [note, setNote] = useState('')
  const focus = () => field.current?.focus()
  const send = () => note.trim() && void previewNote(note.trim())
  const confirm = async () => {
    setNote('')
    if (!(await confirmNote(note.trim()))) setNote((now) => now || note) // it was not carried out
  }
  return (
    <section aria-labelledby="note">
      <h2 id="note">{TEXTS.note.heading}</h2>
      <textarea
        ref={field}
        rows={3}
        maxLength={1000}
        aria-label={TEXTS.note.label}
        placeholder={TEXTS.note.placeholder}
        value={note}
        onInput={(event) => {
          setNote(event.currentTarget.value)
          noteEdited()
        }}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey) return
          event.preventDefault()
          send()
        }}
      />
      {!note && (
        <Examples
          onChoose={(example) => {
            setNote(example)
            noteEdited()
            focus()
          }}
        />
      )}
      {note && !(preview.value && !previewedRule.value) && (
        <div class="line">
          <button class="main" disabled={!opened.value} onClick={send}>
            {TEXTS.note.preview}
          </button>
        </div>
      )}
      {question.value && (
        <Asked asked={question.value} onChoose={(plan) => void previewNote(note.trim(), plan)} />
      )}
      {preview.value && !previewedRule.value && <Plan onConfirm={() => void confirm()} leave={focus} />}
    </section>
  )
}

/** Notes on the current label, once it has a mask that can be wrong. */
function Examples({ onChoose }: { onChoose: (example: string) => void }) {
  const name = current.value
  const slice = views.value.find(({ plane }) => plane === 'axial')?.number
  if (!name || !labelOf(name)?.volume_ml || preview.value) return null
  return (
    <div class="examples">
      {TEXTS.note.examplesHint}
      <ul>
        {TEXTS.note.examples(name, slice).map((example) => (
          <li key={example}>
            <button
              class="link"
              aria-label={TEXTS.note.example(example)}
              title={example}
              onClick={() => onChoose(example)}
            >
              {example}
            </button>
          </li>
        ))}
      </ul>
    </div>
  )
}

function Asked({ asked, onChoose }: { asked: Question; onChoose: (plan: NotePlan) => void }) {
  const { text, choices } = asked
  const box = useRef<HTMLDivElement>(null)
  useIntoView(box, text)
  return (
    <div ref={box} class="question">
      <div role="alert">
        <strong>{TEXTS.note.question}</strong>
        <p>{text}</p>
      </div>
      {choices.length > 0 && (
        <ul aria-label={TEXTS.note.choices}>
          {choices.map(({ sentence, plan }) => (
            <li key={sentence}>
              <button class="wide" title={TEXTS.note.choiceHint} onClick={() => onChoose(plan)}>
                {sentence}
              </button>
            </li>
          ))}
        </ul>
      )}
      <p>{choices.length ? TEXTS.note.answerOrChoose : TEXTS.note.answer}</p>
    </div>
  )
}
