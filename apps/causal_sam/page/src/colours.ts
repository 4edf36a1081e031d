/** Colours of labels: a colour of its own for each, the same in all cases; users may choose others. */
export type Colour = [number, number, number]

export const GAINED_COLOUR: Colour = [60, 220, 110]
export const LOST_COLOUR: Colour = [255, 70, 70]
const KEY = 'causal-sam-colours'
// Each as far from those before it in CIE Lab as can be, and from the colours of changes: no two are closer than 30.
export const PALETTE = [
  ...['#e69f00', '#56b4e9', '#f0e442', '#cc79a7', '#2bb39b', '#d55e00', '#a028f4', '#2864dc', '#887040', '#f434c4'],
  ...['#4c9428', '#dce8ac', '#f4947c', '#aca0f4', '#a0e84c', '#aca034', '#706494'],
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
