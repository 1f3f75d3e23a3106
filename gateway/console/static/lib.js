// The library that draws the page, in one place: Preact, its hooks, and templates that need no build.
import htm from './vendor/htm.js';
import {h} from './vendor/preact.js';

export {Fragment, render} from './vendor/preact.js';
export {useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState} from './vendor/hooks.js';

// html`<p class="note">${text}</p>`: what is filled in is text, never markup.
export const html = htm.bind(h);
