import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { ask } from '../api'
import { barsOf } from '../plot'
import { cases, report } from '../state'
import { TEXTS } from '../texts'
import type { Effort as Spent } from '../types'

const WIDTH = 260
const HEIGHT = 44
const PLOTS = ['clicks', 'notes', 'seconds'] as const

/** What each accepted label has cost, in the order of acceptance. */
export function Effort() {
  const spent = useSignal<Spent[]>([])
  const accepted = (cases.value ?? []).filter(({ state }) => state === 'accepted').map(({ changed }) => changed)
  useEffect(() => {
    if (accepted.length) ask<Spent[]>('GET', 'effort').then((found) => (spent.value = found), report)
  }, [accepted.join()])
  return (
    <details>
      <summary>{TEXTS.learning.effort}</summary>
      {!spent.value.length && <p>{TEXTS.learning.noEffort}</p>}
      {spent.value.length > 0 && PLOTS.map((what) => <Plot key={what} what={what} spent={spent.value} />)}
      {spent.value.length > 0 && <Table spent={spent.value} />}
    </details>
  )
}

function valueOf(each: Spent, what: (typeof PLOTS)[number]): number | null {
  return what !== 'seconds' ? each[what] : each.seconds == null ? null : each.seconds / 60
}

function shown(value: number | null): string {
  return value === null ? '–' : String(Math.round(10 * value) / 10)
}

function Plot({ what, spent }: { what: (typeof PLOTS)[number]; spent: Spent[] }) {
  const values = spent.map((each) => valueOf(each, what))
  const { max, bars, line } = barsOf(values, WIDTH, HEIGHT)
  const title = TEXTS.learning.effortPlots[what]
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <svg
        viewBox={`-22 -4 ${WIDTH + 22} ${HEIGHT + 6}`}
        role="img"
        aria-label={TEXTS.learning.effortPlot(title, spent.length, shown(values[0]!), shown(values.at(-1)!))}
      >
        <text x="-3" y="4">
          {max}
        </text>
        <text x="-3" y={HEIGHT}>
          0
        </text>
        <path d={`M0,${HEIGHT}H${WIDTH}`} />
        {bars.map(({ x, width, height }, n) => (
          <rect key={spent[n]!.id} x={x} y={HEIGHT - height} width={width} height={height}>
            <title>{`${spent[n]!.id}: ${shown(values[n]!)}`}</title>
          </rect>
        ))}
        <polyline points={line} />
      </svg>
    </figure>
  )
}

function Table({ spent }: { spent: Spent[] }) {
  return (
    <details>
      <summary>{TEXTS.learning.effortTable}</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">{TEXTS.learning.case}</th>
            <th scope="col">{TEXTS.learning.when}</th>
            {PLOTS.map((what) => (
              <th key={what} scope="col">
                {TEXTS.learning.effortPlots[what]}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {spent.map((each) => (
            <tr key={each.id}>
              <th scope="row">{each.id}</th>
              <td>{each.accepted == null ? '–' : new Date(1000 * each.accepted).toLocaleDateString()}</td>
              {PLOTS.map((what) => (
                <td key={what}>{shown(valueOf(each, what))}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  )
}
