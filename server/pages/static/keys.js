// `/` goes to the search field, Escape leaves it.

const field = document.querySelector('.search input');

addEventListener('keydown', (event) => {
  // A page may have a search of its own.
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !field) return;
  const isTyping = event.target.closest?.('input, textarea, select, [contenteditable]');
  if (event.key === '/' && !isTyping) {
    event.preventDefault();
    field.focus();
    field.select();
  } else if (event.key === 'Escape' && document.activeElement === field) {
    field.blur();
  }
});
