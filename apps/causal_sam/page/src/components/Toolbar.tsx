import { useState } from 'preact/hooks'
import { windowsOf } from '../windows'
import { TOOLS, accept, brushMm, follows, layout, nextCase, opened, session, setOpacity, setWindow, tool } from '../state'
import { TEXTS } from '../texts'
import { showsUncertainty } from '../uncertainty'
import { LAYOUTS, type Layout } from '../tiles'

export function Toolbar() {
  const image = opened.value
  const windows = image ? windowsOf(image) : []
  const isPainting = tool.value === 'brush' || tool.value === 'erase'
  const [opacity, change] = useState(45)
  return (
    <div class="toolbar">
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
      <label title={TEXTS.tools.followHint}>
        <input
          type="checkbox"
          checked={follows.value}
          onChange={(event) => (follows.value = event.currentTarget.checked)}
        />{' '}
        {TEXTS.tools.follow}
      </label>
      {isPainting && (
        <input
          type="range"
          min={1}
          max={40}
          aria-label={TEXTS.tools.size}
          title={TEXTS.tools.size}
          value={brushMm.value}
          onInput={(event) => (brushMm.value = event.currentTarget.valueAsNumber)}
        />
      )}
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
      <select
        key={image?.id}
        aria-label={TEXTS.windows.label}
        disabled={!image}
        onChange={(event) => setWindow(windows[event.currentTarget.selectedIndex]!.range)}
      >
        {windows.map(({ name }) => (
          <option key={name}>{TEXTS.windows[name]}</option>
        ))}
      </select>
      <input
        type="range"
        min={0}
        max={100}
        aria-label={TEXTS.opacity}
        title={TEXTS.opacity}
        value={opacity}
        onInput={(event) => {
          change(event.currentTarget.valueAsNumber)
          setOpacity(event.currentTarget.valueAsNumber / 100)
        }}
      />
      <button
        aria-pressed={showsUncertainty.value}
        title={TEXTS.uncertainty.hint}
        onClick={() => (showsUncertainty.value = !showsUncertainty.value)}
      >
        {TEXTS.uncertainty.button}
      </button>
      <span class="space" />
      <button class="main" disabled={!session.value?.labels.length} title={TEXTS.accept.hint} onClick={() => void accept()}>
        {TEXTS.accept.accept}
      </button>
      <button onClick={() => void nextCase()}>{TEXTS.accept.next}</button>
    </div>
  )
}
