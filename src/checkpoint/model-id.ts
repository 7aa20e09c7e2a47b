/** Names of models on a hub. */

/** Whether a string has the form `owner/name`. */
export function isModelId(id: string): boolean {
  return /^[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95}$/.test(id) && !id.includes('..') && !id.includes('--');
}
