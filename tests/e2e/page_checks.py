"""What a page lacks for people who see little or nothing: contrast of words, names of controls."""

from __future__ import annotations

from typing import Any, Final

# Colours are painted on a canvas and read back, as styles may tell them in any notation. A word's ground is
# what its ancestors paint over each other; ratios and bounds are of WCAG 2.1, 1.4.3. Controls that are off
# have no bound there, and what a chart draws on its canvas has no style to read.
_FAINT: Final = """() => {
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1
  const brush = canvas.getContext('2d', {willReadFrequently: true})
  const read = colour => {
    brush.clearRect(0, 0, 1, 1); brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1)
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data
    return [r, g, b, a / 255]
  }
  const over = (top, share, ground) => [0, 1, 2].map(i => top[i] * share + ground[i] * (1 - share))
  const light = colour => {
    const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
    const [r, g, b] = colour.map(c => linear(c / 255))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const sheet = document.documentElement.appendChild(document.createElement('i'))
  sheet.style.backgroundColor = 'Canvas'  // what the browser paints below all, in the page's scheme
  const paper = read(getComputedStyle(sheet).backgroundColor)
  sheet.remove()
  const groundOf = element => {
    const above = []
    for (let one = element; one; one = one.parentElement) above.unshift(one)
    return above.reduce((ground, one) => {
      const painted = read(getComputedStyle(one).backgroundColor)
      return over(painted, painted[3], ground)
    }, paper)
  }
  const opacityOf = element =>
    element ? Number(getComputedStyle(element).opacity) * opacityOf(element.parentElement) : 1
  const found = []
  const check = (element, words) => {
    const style = getComputedStyle(element)
    if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) return
    if (element.closest('[disabled], [aria-disabled="true"], [aria-hidden="true"], svg, .disabled')) return
    const ground = groundOf(element)
    const ink = read(style.color)
    const lights = [light(over(ink, ink[3] * opacityOf(element), ground)), light(ground)]
    const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05)
    const size = parseFloat(style.fontSize)
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700)
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${words.slice(0, 60)}`)
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const words = texts.currentNode.data.trim()
    const holder = texts.currentNode.parentElement
    if (words && !holder.closest('script, style, noscript')) check(holder, words)
  }
  for (const field of document.querySelectorAll('input, textarea')) if (field.value) check(field, field.value)
  return found
}"""

_NAMELESS: Final = """() => {
  const words = text => (text || '').trim()
  const told = one => words(one.getAttribute('aria-label')) ||
    words((one.getAttribute('aria-labelledby') || '').split(' ').map(
      id => words(document.getElementById(id)?.textContent)).join(' '))
  // Of a label around a field that has words typed in, those are not its name.
  const labelled = one => [...(one.labels || [])].some(label => {
    const copy = label.cloneNode(true)
    copy.querySelectorAll('input, textarea, select, [aria-hidden="true"]').forEach(field => field.remove())
    return words(copy.textContent)
  })
  const found = []
  const fields = 'input, textarea, select'
  const dialogs = '[role=dialog], [role=alertdialog]'
  for (const one of document.querySelectorAll(`${fields}, ${dialogs}, button, a[href], [role=button]`)) {
    if (one.type === 'hidden' || one.closest('[aria-hidden="true"]') || !one.checkVisibility()) continue
    const isField = one.matches(fields)
    const isDialog = one.matches(dialogs)
    const icons = one.cloneNode(true)
    icons.querySelectorAll('[aria-hidden="true"]').forEach(icon => icon.remove())
    const named = told(one) || (isField ? labelled(one) : !isDialog && words(icons.textContent))
    if (!named) found.push(one.outerHTML.slice(0, 120))
  }
  return found
}"""


def faint_words(page: Any) -> list[str]:
    """Visible words whose contrast is below 4.5, or 3 where they are large, each after its ratio."""
    found: list[str] = page.evaluate(_FAINT)
    return found


def nameless_controls(page: Any) -> list[str]:
    """Visible fields, buttons, links and dialogs that a screen reader has no name for, as HTML."""
    found: list[str] = page.evaluate(_NAMELESS)
    return found
