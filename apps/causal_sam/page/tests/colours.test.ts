import { expect, test } from 'vitest'
import { GAINED_COLOUR, LOST_COLOUR, PALETTE, toRgb, type Colour } from '../src/colours'

/** CIE Lab of a colour. */
function lab(colour: Colour): Colour {
  const [r, g, b] = colour.map((n) => (n / 255 > 0.04045 ? ((n / 255 + 0.055) / 1.055) ** 2.4 : n / 255 / 12.92)) as Colour
  const xyz = [
    (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
    0.2126 * r + 0.7152 * g + 0.0722 * b,
    (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
  ]
  const [x, y, z] = xyz.map((n) => (n > 0.008856 ? Math.cbrt(n) : 7.787 * n + 16 / 116)) as Colour
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)]
}

test('no two colours of labels are alike, nor like those of changes', () => {
  const all = PALETTE.map((each) => lab(toRgb(each)))
  const changes = [GAINED_COLOUR, LOST_COLOUR].map(lab)
  all.forEach((one, n) => {
    for (const other of [...all.slice(0, n), ...changes]) {
      const distance = Math.hypot(...one.map((value, axis) => value - other[axis as 0]))
      expect(distance, `${PALETTE[n]} and ${PALETTE[all.indexOf(other)] ?? 'a change'}`).toBeGreaterThan(28)
    }
  })
})
