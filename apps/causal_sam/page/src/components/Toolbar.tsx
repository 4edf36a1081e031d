import { useState } from 'preact/hooks'
import { accept, isAccepted } from '../acceptance'
import { HAS_SIGN } from '../drawing'
import { showsMarks } from '../marks'
import { TOOLS, brushMm, colours, current, follows, layout, nextCase, opened, removes, session, tool, viewer } from '../state'
import { TEXTS } from '../texts'
import { showsUncertainty } from '../uncertainty'
import { LAYOUTS, type Layout } from '../tiles'
import { numbersOf, windowsOf } from '../windows'

/** Two rows: what the pointer does, and what the views show. */
export function Toolbar() {
  return (
    <div class="toolbar">
      <div class="row">
        <Tools />
        <span class="space" />
        <Accept />
        <button title={TEXTS.accept.nextHint} onClick={() => void nextCase()}>
          {TEXTS.accept.next}
        </button>
      </div>
      <div class="row">
        <Shown />
      </div>
    </div>
  )
}

/** Stays in the order of the focus when nothing is left to accept, and then says so. */
function Accept() {
  const isDone = isAccepted.value
  return (
    <button
      class="main"
      disabled={!session.value?.labels.length}
      aria-disabled={isDone}
      title={isDone ? TEXTS.accept.unchanged : TEXTS.accept.hint}
      onClick={() => void accept()}
    >
      {isDone ? TEXTS.accept.accepted : TEXTS.accept.accept}
    </button>
  )
}

/** The label that the tools work on: its row may be scrolled away. */
function Current() {
  const name = current.value
  if (!name || tool.value === 'navigate') return null
  return (
    <span class="now" title={TEXTS.tools.currentHint(name)}>
      <i style={{ background: colours.value.get(name) }} />
      <span>{name}</span>
    </span>
  )
}

function Tools() {
  return (
    <>
      <div role="group" aria-label={TEXTS.tools.label}>
        {TOOLS.map((each) => (
          <button
            key={each}
            aria-pressed={tool.value === each}
            title={TEXTS.tools.hints[each]}
            onClick={() => (tool.value = each)}
          >
            {TEXTS.tools[each]}
          </button>
        ))}
      </div>
      <Current />
      {HAS_SIGN.has(tool.value) && (
        <div role="group" aria-label={TEXTS.tools.sign}>
          {[false, true].map((isRemoving) => (
            <button
              key={String(isRemoving)}
              class={isRemoving ? 'minus' : 'plus'}
              aria-pressed={removes.value === isRemoving}
              title={isRemoving ? TEXTS.tools.removeHint : TEXTS.tools.addHint}
              onClick={() => (removes.value = isRemoving)}
            >
              {isRemoving ? TEXTS.tools.remove : TEXTS.tools.add}
            </button>
          ))}
        </div>
      )}
      {(tool.value === 'brush' || tool.value === 'erase') && (
        <label title={TEXTS.tools.sizeHint}>
          {TEXTS.tools.size(brushMm.value)}{' '}
          <input
            type="range"
            min={1}
            max={40}
            value={brushMm.value}
            onInput={(event) => (brushMm.value = event.currentTarget.valueAsNumber)}
          />
        </label>
      )}
    </>
  )
}

function Shown() {
  const image = opened.value
  const windows = image ? windowsOf(image) : []
  const [opacity, change] = useState(35)
  return (
    <>
      <label title={TEXTS.tools.followHint}>
        <input
          type="checkbox"
          checked={follows.value}
          onChange={(event) => (follows.value = event.currentTarget.checked)}
        />{' '}
        {TEXTS.tools.follow}
      </label>
      <span class="space" />
      <label title={TEXTS.layout.hint}>
        {TEXTS.layout.label}{' '}
        <select
          aria-label={TEXTS.layout.label}
          value={layout.value}
          onChange={(event) => (layout.value = event.currentTarget.value as Layout)}
        >
          {LAYOUTS.map((each) => (
            <option key={each} value={each}>
              {TEXTS.layout[each]}
            </option>
          ))}
        </select>
      </label>
      <label class="window" title={TEXTS.windows.hint}>
        {TEXTS.windows.label}{' '}
        <select
          key={image?.id}
          aria-label={TEXTS.windows.label}
          disabled={!image}
          onChange={(event) => viewer?.setWindow(windows[event.currentTarget.selectedIndex]!.range)}
        >
          {windows.map((each) => (
            <option key={each.name}>{TEXTS.windows.preset(TEXTS.windows[each.name], numbersOf(each))}</option>
          ))}
        </select>
      </label>
      <label title={TEXTS.opacity.hint}>
        {TEXTS.opacity.label}{' '}
        <input
          type="range"
          min={0}
          max={100}
          value={opacity}
          onInput={(event) => {
            change(event.currentTarget.valueAsNumber)
            viewer?.setOpacity(event.currentTarget.valueAsNumber / 100)
          }}
        />
      </label>
      <label title={TEXTS.marks.hint}>
        <input
          type="checkbox"
          checked={showsMarks.value}
          onChange={(event) => (showsMarks.value = event.currentTarget.checked)}
        />{' '}
        {TEXTS.marks.label}
      </label>
      <button
        aria-pressed={showsUncertainty.value}
        title={TEXTS.uncertainty.hint}
        onClick={() => (showsUncertainty.value = !showsUncertainty.value)}
      >
        {TEXTS.uncertainty.button}
      </button>
    </>
  )
}
