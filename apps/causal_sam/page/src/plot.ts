/** A plot of one number for each accepted label, as bars with a line through their running mean. */

export interface Bars {
  /** Upper end of the axis: 1, 2 or 5 times a power of ten. */
  max: number
  bars: { x: number; width: number; height: number }[]
  /** Points of the line, as SVG takes them. */
  line: string
}

/** Number of values whose mean the line shows. */
export const WINDOW = 5

/**
 * Lays bars out in a box.
 *
 * @param values one for each bar; null leaves its place empty
 * @param width width of the box
 * @param height height of the box, which the largest value does not exceed
 */
export function barsOf(values: (number | null)[], width: number, height: number): Bars {
  const max = roundUp(Math.max(...values.map((value) => value ?? 0), 0))
  const step = width / Math.max(values.length, 1)
  const scale = height / max
  const means = values.map((_, n) => mean(values.slice(Math.max(0, n + 1 - WINDOW), n + 1)))
  return {
    max,
    bars: values.map((value, n) => ({ x: n * step, width: 0.8 * step, height: (value ?? 0) * scale })),
    line: means
      .flatMap((value, n) => (value === null ? [] : [`${round((n + 0.4) * step)},${round(height - value * scale)}`]))
      .join(' '),
  }
}

function mean(values: (number | null)[]): number | null {
  const known = values.filter((value) => value !== null)
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null
}

function roundUp(value: number): number {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((factor) => factor * power).find((end) => end >= value)!
}

function round(value: number): number {
  return Math.round(100 * value) / 100
}
