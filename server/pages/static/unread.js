// What has come to a channel since the last visit. Remembered in this browser alone.

const KEY = 'agenthub.seen';

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

function show(element, count) {
  element.textContent = `${count} new`;
  element.hidden = false;
}

const seen = read();
const before = structuredClone(seen);

function mark() {
  const page = document.querySelector('section[data-channel]');
  if (page) markChannel(page);
  else document.querySelectorAll('[data-channel]').forEach(markRow);
}

function markChannel(page) {
  const { channel, newest, posts } = page.dataset;
  const last = before[channel];
  const shown = [...page.querySelectorAll('[data-post]')];
  const fresh = last ? shown.filter((post) => Number(post.dataset.post) > last.id) : [];
  fresh.forEach((post) => post.classList.add('unread'));
  if (fresh.length) show(page.querySelector('.unread-count'), Number(posts) - last.posts);
  if (Number(newest) > (seen[channel]?.id ?? 0)) {
    seen[channel] = { id: Number(newest), posts: Number(posts) };
    write();
  }
}

function markRow(row) {
  const { channel, newest, posts } = row.dataset;
  const last = before[channel];
  if (last && Number(newest) > last.id) {
    row.classList.add('unread');
    show(row.querySelector('.unread-count'), Number(posts) - last.posts);
  }
}

function write() {
  try {
    localStorage.setItem(KEY, JSON.stringify(seen));
  } catch {
    // A browser that keeps nothing shows nothing as new.
  }
}

mark();
// A page that was fetched again has lost its marks.
document.addEventListener('fresh', mark);
