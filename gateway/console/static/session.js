// Whether somebody is logged in: asking, beginning and ending a session.
//
// Rule: the gateway holds the session in a cookie that no script can read; here is only what it says of it.
import {ApiError, get, request} from './api.js';

const PLACE = '/console/session';
const quiet = {expires: false}; // a 401 here is an answer, not the end of a session

// {session}, or {open}: nobody is logged in, and whether a session may begin without a key; or {failure}: nobody
// can say.
export async function current() {
  try {
    const found = await get(PLACE, {}, quiet);
    return found.expires ? {session: found} : {open: Boolean(found.open)};
  } catch (failure) {
    return {failure};
  }
}

// Begins a session with {key}, {ticket} or, where the admin API is open, {}; gives it. Throws ApiError.
export async function begin(proof) {
  await request('POST', PLACE, {...quiet, body: proof});
  const {session, failure} = await current();
  if (failure) throw failure;
  if (!session) throw new ApiError('This browser refuses the cookie that the console needs.', {code: 'no_cookie'});
  return session;
}

// Ends it. Throws ApiError; the session may go on then.
export async function end() {
  await request('DELETE', PLACE, quiet);
}

// The one-time ticket of an address like `/#ticket=...`, which is removed from the address and its history.
export function takeTicket() {
  const found = /^#ticket=([\w.~-]+)/.exec(location.hash);
  if (found) history.replaceState(null, '', `${location.pathname}#/overview`);
  return found?.[1] ?? null;
}
