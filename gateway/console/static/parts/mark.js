// The gateway's mark, beside its name.
import {html} from '../lib.js';

export function Mark() {
  return html`<svg class="mark" width="24" height="24" viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" /><path d="M8 23V13a8 8 0 0 1 16 0v10M13 23v-9.500a3 3 0 0 1 6 0V23" /></svg>`;
}
