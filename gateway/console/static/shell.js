// The frame around every page: navigation, light or dark, the way out, and the page itself.
import {Fragment, html, useEffect, useRef, useState} from './lib.js';
import {Empty, Failure, Loading} from './parts/basic.js';
import {Icon} from './parts/icons.js';
import {Mark} from './parts/mark.js';
import {PAGES} from './pages.js';
import {href} from './router.js';

const THEMES = ['system', 'light', 'dark'];

export function Shell({route, session, onLogout}) {
  const row = PAGES.find(({name}) => name === route.name);
  const skip = (event) => {
    event.preventDefault(); // the address' hash names the page
    document.getElementById('main').focus();
  };
  return html`<${Fragment}>
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <div class="shell">
      <header class="side"><div class="side-view">
        <a class="brand" href=${href('overview')}><${Mark} /><span>modal-gateway</span></a>
        <nav aria-label="Pages"><ul>
          ${PAGES.map(({name, title}) => html`<li key=${name}><a href=${href(name)}
            aria-current=${name === route.name ? 'page' : null}><${Icon} name=${name} /><span>${title}</span></a></li>`)}
        </ul></nav>
        <div class="side-foot">
          <span class="version">${session.version}</span>
          <${ThemeSwitch} />
          <button type="button" class="quiet square" aria-label="Log out" title="Log out" onClick=${onLogout}>
            <${Icon} name="logout" /></button>
        </div>
      </div></header>
      <main id="main" tabindex="-1">
        ${row ? html`<${Page} key=${row.name} row=${row} route=${route} session=${session} />`
          : html`<${Empty} title="Page not found"><a href=${href('overview')}>Go to the overview</a><//>`}
      </main>
    </div>
  <//>`;
}

let first = true; // the page that is opened takes no focus: the browser's own place is right

function Page({row, route, session}) {
  const [state, setState] = useState({module: null, error: null});
  const load = () => {
    setState({module: null, error: null});
    row.load().then((module) => setState({module, error: null}), (error) => setState({module: null, error}));
  };
  useEffect(load, [row]);
  useFocus(row, route, state.module);
  if (state.error) {
    return html`<${Failure} error=${{message: `The page "${row.title}" could not be loaded.`}} retry=${load} />`;
  }
  if (!state.module) return html`<${Loading} />`;
  return html`<${state.module.default} route=${route} session=${session} />`;
}

function useFocus(row, route, module) {
  const before = useRef(null);
  useEffect(() => {
    document.title = `${row.title} · modal-gateway`;
    if (!module || before.current === (route.id ?? '')) return;
    const moved = before.current !== null || !first;
    before.current = route.id ?? '';
    if (moved) {
      document.querySelector('main h1')?.focus({preventScroll: true});
      scrollTo(0, 0);
    }
    first = false;
  }, [row, route.id, module]);
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(() => document.documentElement.dataset.theme ?? 'system');
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const turn = () => {
    setTheme(next);
    keep(next);
  };
  return html`<button type="button" class="quiet square" onClick=${turn} title=${`Theme: ${theme}`}
    aria-label=${`Theme: ${theme}. Change to ${next}.`}><${Icon} name=${theme} /></button>`;
}

function keep(theme) {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem('theme', theme);
  } catch {
    // Without storage the choice holds until the page is left.
  }
}
