import { useState } from 'preact/hooks'
import { accept } from '../acceptance'
import { HAS_SIGN } from '../drawing'
import { showsMarks } from '../marks'
import { windowsOf } from '../windows'
import { TOOLS, brushMm, follows, layout, nextCase, opened, removes, session, tool, viewer } from '../state'
import { TEXTS } from '../texts'
import { showsUncertainty } from '../uncertainty'
import { LAYOUTS, type Layout } from '../tiles'

/** Two rows: what the pointer does, and what the views show. */
export function Toolbar() {
  return (
    <div class="toolbar">
      <div class="row">
        <Tools />
        <span class="space" />
        <button class="main" disabled={!session.value?.labels.length} title={TEXTS.accept.hint} onClick={() => void accept()}>
          {TEXTS.accept.accept}
        </button>
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
  const [opacity, change] = useState(45)
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
      <label title={TEXTS.windows.hint}>
        {TEXTS.windows.label}{' '}
        <select
          key={image?.id}
          aria-label={TEXTS.windows.label}
          disabled={!image}
          onChange={(event) => viewer?.setWindow(windows[event.currentTarget.selectedIndex]!.range)}
        >
          {windows.map(({ name }) => (
            <option key={name}>{TEXTS.windows[name]}</option>
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
