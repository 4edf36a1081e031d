/** Colours of labels: a colour of its own for each, the same in all cases; users may choose others. */
export type Colour = [number, number, number]

export const GAINED_COLOUR: Colour = [60, 220, 110]
export const LOST_COLOUR: Colour = [255, 70, 70]
const KEY = 'causal-sam-colours'
// Equally light, and far apart for people who cannot tell red from green, as far as so many can be.
const PALETTE = [
  ...['#e69f00', '#56b4e9', '#f0e442', '#cc79a7', '#2bb39b', '#d55e00', '#6d8cff', '#b0d350', '#ff9eb5', '#a37be0'],
  ...['#7fd1ff', '#c9a66b', '#ff7f50', '#8fd6a8', '#e3b7ff', '#ffd27f'],
]

/** The colour of a label as `#rrggbb`. */
export function colourOf(name: string, position: number): string {
  return chosen()[name] ?? PALETTE[position % PALETTE.length]!
}

export function chooseColour(name: string, colour: string): void {
  localStorage.setItem(KEY, JSON.stringify({ ...chosen(), [name]: colour }))
}

export function toRgb(colour: string): Colour {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16)) as Colour
}

function chosen(): Record<string, string> {
  return JSON.parse(localStorage.getItem(KEY) ?? '{}') as Record<string, string>
}
