import { useRef } from 'preact/hooks'
import { chooseColour } from '../colours'
import * as state from '../state'
import { TEXTS } from '../texts'
import { useEntryInView } from './scrolling'

// Outlines on a grid of 16 x 16.
const EYE = 'M1 8q7-9 14 0q-7 9-14 0zM10 8a2 2 0 1 1-4 0a2 2 0 1 1 4 0'
const EYE_CLOSED = 'M1 8q7 7 14 0M3 11l-1 2M8 12v2M13 11l1 2'
const LOCKED = 'M4 7h8v7H4zM5 7V5a3 3 0 0 1 6 0v2'
const UNLOCKED = 'M4 7h8v7H4zM5 7V4a3 3 0 0 1 5.5-1.5'
const CROSS = 'M4 4l8 8M12 4l-8 8'

function Icon({ path }: { path: string }) {
  return (
    <svg width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.4" aria-hidden="true">
      <path d={path} />
    </svg>
  )
}

export function Labels() {
  const list = useRef<HTMLUListElement>(null)
  const names = state.names.value
  useEntryInView(list, names.indexOf(state.current.value ?? ''), names.length)
  return (
    <section class="choices" aria-labelledby="labels">
      <h2 id="labels">{TEXTS.labels.heading}</h2>
      <ul class="labels" ref={list}>
        {names.map((name) => (
          <Row key={name} name={name} />
        ))}
      </ul>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault()
          const field = event.currentTarget.elements.namedItem('name') as HTMLInputElement
          state.addLabel(field.value.trim())
          field.value = ''
        }}
      >
        <input name="name" aria-label={TEXTS.labels.add} placeholder={TEXTS.labels.add} disabled={!state.opened.value} />
        <button disabled={!state.opened.value}>{TEXTS.labels.addButton}</button>
        <button
          type="button"
          disabled={!state.opened.value}
          title={TEXTS.labels.automaticHint}
          onClick={() => void state.findByName()}
        >
          {TEXTS.labels.automaticButton}
        </button>
      </form>
    </section>
  )
}

function Row({ name }: { name: string }) {
  const label = state.labelOf(name)
  const isShown = !state.hidden.value.has(name)
  const isLocked = state.session.value?.locked.includes(name) ?? false
  const known = label && label.source !== 'user' ? TEXTS.labels[label.source] : ''
  const certainty = label?.source === 'automatic' ? label.certainty : null
  return (
    <li class={state.current.value === name ? 'current' : ''}>
      <input
        type="color"
        aria-label={TEXTS.labels.colour(name)}
        value={state.colours.value.get(name)}
        onChange={(event) => {
          chooseColour(name, event.currentTarget.value)
          state.recolour()
        }}
      />
      <button
        class="name"
        aria-pressed={state.current.value === name}
        title={TEXTS.labels.current(name)}
        onClick={() => state.choose(name)}
      >
        <span>{name}</span>
        {certainty == null ? (
          <small>{known}</small>
        ) : (
          <small title={TEXTS.labels.certaintyHint}>{TEXTS.labels.automaticCertainty(certainty)}</small>
        )}
      </button>
      <span class="ml">{TEXTS.labels.ml(label?.volume_ml ?? 0)}</span>
      <button
        class="icon"
        aria-pressed={isShown}
        aria-label={TEXTS.labels.show(name)}
        title={TEXTS.labels.show(name)}
        onClick={() => state.toggleShown(name)}
      >
        <Icon path={isShown ? EYE : EYE_CLOSED} />
      </button>
      <button
        class="icon"
        aria-pressed={isLocked}
        aria-label={TEXTS.labels.lock(name)}
        title={TEXTS.labels.lock(name)}
        onClick={() => void state.toggleLock(name)}
      >
        <Icon path={isLocked ? LOCKED : UNLOCKED} />
      </button>
      <button
        class="icon"
        disabled={!label?.volume_ml || isLocked}
        aria-label={TEXTS.labels.reset(name)}
        title={TEXTS.labels.reset(name)}
        onClick={() => void state.emptyLabel(name)}
      >
        <Icon path={CROSS} />
      </button>
    </li>
  )
}
