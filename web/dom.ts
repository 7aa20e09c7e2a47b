/** Small helpers for elements and numbers. */

type Child = Node | string;

/** An element with attributes; those that are false or undefined are left out. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number | boolean | undefined>> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  setAll(element, attributes);
  element.append(...children);
  return element;
}

/** The same for SVG. */
export function svg(
  tag: string,
  attributes: Readonly<Record<string, string | number | boolean | undefined>> = {},
  ...children: Child[]
): SVGElement {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  setAll(element, attributes);
  element.append(...children);
  return element;
}

function setAll(element: Element, attributes: Readonly<Record<string, string | number | boolean | undefined>>): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
}

/** An element of the page by its id. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const found = document.querySelector<E>(`#${id}`);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;
}

export function millions(count: number): string {
  return `${(count / 1e6).toFixed(count < 1e6 ? 2 : 1)} M`;
}

/** Tokens a second: whole, with a digit more where they are few. */
export function speed(perSecond: number): string {
  return perSecond.toFixed(perSecond < 10 ? 1 : 0);
}

/** Calls `task` once nothing has asked for it for so long. */
export function afterPause(ms: number, task: () => void): { ask(): void; drop(): void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const drop = (): void => clearTimeout(timer);
  return {
    ask() {
      drop();
      timer = setTimeout(task, ms);
    },
    drop,
  };
}
