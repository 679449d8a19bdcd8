'use strict';
/* The label page. BOARD, of board.js, is all that it knows; no text of it becomes markup. */
(() => {
  const WORDS = ['object', 'distractor', 'unsure'];
  const SIGNS = {object: '●', distractor: '✕', unsure: '?'};
  const IDLE_S = 60, AHEAD = 2;
  const SOURCE = (ANSWERS.gainKnown ? 'Expected gain: in the experiment of Kolesnikov and Lampert ' +
    '(BMVC 2016, figure 6b, 1000 classes of ILSVRC), the first 15 % of the classes, in this order, ' +
    'brought 50 % of the gain in localization, and the first 50 % brought 85 %. Between, straight ' +
    'lines. An estimate; your data may differ. ' : '') + 'Time left: the median of your own seconds.';
  const {answers, download, gainKnown, gained, keep, median, send, serves, timed} = ANSWERS;
  const {draw, duration, layout, make, percent, strips, stripsOf} = DRAWING;
  const classes = BOARD.classes;
  const drafts = new Map();
  const spent = new Map();
  const history = [];
  let place = -1;
  let busy = false;
  let ended = false;
  let bare = false;
  let since = performance.now();
  let zoomed = 0;
  let zooms = 0;

  const $ = id => document.getElementById(id);
  const say = text => { $('status').textContent = text; };
  function warn(text, mild = false, where = 'alert') {
    $(where).hidden = !text;
    $(where).className = mild ? 'alert mild' : 'alert';
    $(where).textContent = text;
  }

  /* ---- the clock: what somebody looks at, without long breaks ---- */
  const paused = () => place < 0 || ended || $('summary').open || $('keys').open;
  function count(leaving = false) {
    const now = performance.now();
    if (!paused() && (leaving || !document.hidden))
      spent.set(place, (spent.get(place) || 0) + Math.min((now - since) / 1000, IDLE_S));
    since = now;
  }
  const running = () =>
    document.hidden || paused() ? 0 : Math.min((performance.now() - since) / 1000, IDLE_S);

  /* ---- pictures: strips of this class and of the next ones ---- */
  function lookAhead() {
    const wanted = new Set([place, place - 1]);
    for (let index = place + 1, left = AHEAD; index < classes.length && left; index++)
      if (!answers.has(index)) { wanted.add(index); left--; }
    if (place + 1 < classes.length) wanted.add(place + 1);
    for (const index of strips.keys()) if (!wanted.has(index)) strips.delete(index);
    for (const index of wanted) if (index >= 0) stripsOf(index);
  }
  async function paint() {
    const here = place;
    const images = await stripsOf(here);
    if (here !== place) return;
    for (const tile of document.querySelectorAll('.tile'))
      draw(tile.firstChild, images, Number(tile.dataset.number), Number(tile.dataset.cluster), bare);
    if (images.includes(null)) {
      strips.delete(here);
      warn('Some pictures of this class did not arrive. Go back and forth to try again.');
    }
    $('panels').classList.remove('loading');
  }
  function setBare(on) {
    bare = on;
    $('bare').setAttribute('aria-pressed', String(on));
    paint();
    if ($('zoom').open) zoom(zoomed, true);
  }

  /* ---- one class ---- */
  function draftOf(index) {
    if (!drafts.has(index)) {
      const known = answers.get(index);
      drafts.set(index, {words: known ? [...known.words] : classes[index].sizes.map(() => 'object'),
        steps: []});
    }
    return drafts.get(index);
  }
  function show(index) {
    count();
    place = index;
    if (answers.has(index)) drafts.delete(index);
    const one = classes[index];
    $('position').textContent = 'Class ' + (index + 1) + ' of ' + classes.length;
    $('name').textContent = one.name;
    document.title = one.name + ' · ' + (index + 1) + ' / ' + classes.length;
    $('ask').textContent = 'Where is it hot: on the object, or on something that comes along with it?' +
      (answers.has(index) ? ' Answered before; Enter keeps it.' : '');
    warn('');
    $('clock').textContent = duration(spent.get(place) || 0);
    const total = one.sizes.reduce((sum, size) => sum + size, 0) || 1;
    $('panels').dataset.count = one.sizes.length;
    $('panels').classList.add('loading');
    $('panels').replaceChildren(...one.sizes.map((size, cluster) => panel(one, cluster, size / total)));
    for (let cluster = 0; cluster < one.sizes.length; cluster++) mark(cluster);
    arrange();
    paint();
    lookAhead();
    tell();
    window.scrollTo(0, 0);
  }
  function panel(one, cluster, share) {
    const words = make('div', {class: 'words', role: 'group', 'aria-label': 'Cluster ' + (cluster + 1)},
      ...WORDS.map(word => make('button', {type: 'button', 'data-word': word, 'aria-pressed': 'false'},
        SIGNS[word] + ' ' + word)));
    words.addEventListener('click', event => {
      event.stopPropagation();
      const button = event.target.closest('button');
      if (!button) return;
      if (event.detail) button.blur();
      set(cluster, button.dataset.word);
    });
    const bar = make('div', {class: 'bar'}, make('span', {class: 'key', 'aria-hidden': 'true'},
      String(cluster + 1)), make('span', {class: 'share'}, percent(share),
      make('span', {class: 'wide'}, ' of patterns')), words);
    bar.title = 'Click: object or distractor. The outline, not the share, is what it decides';
    bar.addEventListener('click', () => toggle(cluster));
    const tiles = one.pictures.map(([name, width, height], number) => {
      const canvas = make('canvas', {width, height});
      const tile = make('button', {type: 'button', class: 'tile', tabindex: number ? '-1' : '0',
        'data-number': number, 'data-cluster': cluster,
        'aria-label': 'Picture ' + (number + 1) + ', cluster ' + (cluster + 1) + ': enlarge'}, canvas);
      tile.title = name;
      tile.addEventListener('pointerenter', event => light(event.pointerType === 'mouse' ? number : -1));
      tile.addEventListener('pointerleave', () => light(-1));
      tile.addEventListener('click', event => { if (event.detail) tile.blur(); zoom(number); });
      return tile;
    });
    return make('section', {class: 'panel', 'aria-label': 'Cluster ' + (cluster + 1) + ' of ' +
      one.sizes.length + ', ' + percent(share) + ' of the patterns'}, bar,
      make('div', {class: 'tiles'}, ...tiles));
  }
  function arrange() {
    const high = innerHeight - document.querySelector('footer').offsetHeight -
      $('panels').getBoundingClientRect().top - scrollY - 14;
    const found = layout(classes[place], $('panels').clientWidth, high);
    for (const name of ['across', 'cols', 'ratio'])
      $('panels').style.setProperty('--' + name, found[name]);
    $('panels').style.setProperty('--tile', found.tile ? found.tile + 'px' : '1fr');
  }
  function light(number) {
    for (const tile of document.querySelectorAll('.tile'))
      tile.classList.toggle('lit', Number(tile.dataset.number) === number);
  }
  function mark(cluster) {
    const word = draftOf(place).words[cluster];
    const node = $('panels').children[cluster];
    node.dataset.word = word;
    for (const button of node.querySelectorAll('.words button'))
      button.setAttribute('aria-pressed', String(button.dataset.word === word));
  }
  function set(...changes) {
    const draft = draftOf(place);
    if (busy || ended) return;
    const before = [...draft.words];
    for (let n = 0; n < changes.length; n += 2) draft.words[changes[n]] = changes[n + 1];
    if (before.join() === draft.words.join()) return;
    draft.steps.push(before);
    refresh();
    for (let n = 0; n < changes.length; n += 2)
      say('Cluster ' + (changes[n] + 1) + ': ' + changes[n + 1]);
    if (changes.length > 2) say('All clusters: unsure');
  }
  function refresh() {
    const {words} = draftOf(place);
    words.forEach((_, cluster) => mark(cluster));
    if ($('zoom').open) zoom(zoomed, true);
    warn(words.some(word => word !== 'distractor') ? '' :
      'Every cluster is a distractor: a map with nothing left keeps its scores as they are.', true);
  }
  const toggle = cluster =>
    set(cluster, draftOf(place).words[cluster] === 'object' ? 'distractor' : 'object');
  const unsureAll = () => set(...classes[place].sizes.flatMap((_, cluster) => [cluster, 'unsure']));

  /* ---- from class to class ---- */
  function next(index) {
    for (let n = 1; n <= classes.length; n++) {
      const other = (index + n) % classes.length;
      if (!answers.has(other)) return other;
    }
    return -1;
  }
  async function during(work) {
    if (busy || ended) return;
    busy = true;
    document.body.setAttribute('aria-busy', 'true');
    try { await work(); } catch (error) { warn('Not saved: ' + error.message); }
    busy = false;
    document.body.removeAttribute('aria-busy');
  }
  function confirm() {
    if ($('panels').classList.contains('loading')) { say('Pictures are on their way…'); return; }
    during(async () => {
      count();
      const index = place;
      const before = answers.get(index);
      await keep(index, [...draftOf(index).words], spent.get(index) || 0);
      history.push({index, before});
      drafts.delete(index);
      const then = next(index);
      say(classes[index].name + ' is kept: ' + answers.get(index).words.join(', ') + '.');
      if (then >= 0) show(then); else { show(index); summary(false); }
    });
  }
  function undo() {
    const {steps} = draftOf(place);
    if (steps.length) {
      draftOf(place).words = steps.pop();
      refresh();
      say('Mark undone.');
      return;
    }
    if (!history.length) { say('There is nothing to undo.'); return; }
    during(async () => {
      const {index, before} = history[history.length - 1];
      const words = answers.get(index).words;
      await keep(index, before ? before.words : null, spent.get(index) || 0);
      history.pop();
      drafts.delete(index);
      show(index);
      if (!before) { draftOf(index).words = [...words]; refresh(); }
      say('The answer to ' + classes[index].name + ' is taken back.');
    });
  }
  function step(by) {
    if (busy) return;
    const other = place + by;
    if (other < 0) say('This is the first class.');
    else if (other >= classes.length) summary();
    else { show(other); say(''); }
  }

  /* ---- numbers ---- */
  function tell() {
    const left = classes.length - answers.size;
    $('answered').replaceChildren(String(answers.size), make('small', {}, ' of ' + classes.length));
    const known = timed();
    $('left').textContent = !left ? 'none' : known.length < 3 ? 'after 3 answers'
      : 'about ' + duration(left * median(known));
    $('gain').textContent = gainKnown ? 'about ' + percent(gained()) : String(left);
    $('progress').setAttribute('aria-valuemax', classes.length);
    $('progress').setAttribute('aria-valuenow', answers.size);
    $('progress').firstChild.style.width = 100 * answers.size / classes.length + '%';
    $('back').disabled = place <= 0;
  }
  function summary(asked = true) {
    count();
    const words = [...answers.values()].flatMap(one => one.words);
    const touched = [...answers.values()].filter(one => one.words.includes('distractor')).length;
    const known = timed();
    const left = classes.length - answers.size;
    const facts = [
      ['classes answered', answers.size + ' of ' + classes.length],
      ...WORDS.map(word => [SIGNS[word] + ' ' + word, words.filter(one => one === word).length +
        (word === 'distractor' ? ' clusters, in ' + touched + ' classes' : ' clusters')]),
      ['time', known.length ? duration(known.reduce((a, b) => a + b)) + ', ' +
        median(known).toFixed(1) + ' s a class (median)' : '–'],
      ...gainKnown ? [['expected gain', 'about ' + percent(gained()) + ' of the whole']] : [],
      [serves ? 'kept in' : 'file', BOARD.labels_name],
    ];
    $('summary-facts').replaceChildren(...facts.flatMap(([name, value]) =>
      [make('dt', {}, name), make('dd', {}, value)]));
    $('summary-title').textContent = left ? 'So far' : 'All classes are answered';
    $('summary-more').textContent = (left ? left + (left === 1 ? ' class has' : ' classes have') +
      ' no answer; their maps will pass unchanged. ' : '') + (serves
      ? (left ? 'The same command goes on from here. ' : '') + 'Next:'
      : 'Answers stay in this browser. Download them and hand the file back; then:');
    $('summary-next').textContent = BOARD.next_command;
    warn('', false, 'summary-alert');
    if (!$('summary').open) $('summary').showModal();
    (!asked ? $('summary-title') : serves ? $('end') : $('download')).focus();
  }
  function keys() { count(); $('keys').showModal(); }
  async function end() {
    await during(async () => {
      try { await send('finish', {}); } catch (error) {
        warn(error.message, false, 'summary-alert');
        return;
      }
      ended = true;
      document.body.classList.add('ended');
      for (const button of $('summary').querySelectorAll('button')) button.hidden = true;
      $('summary-title').textContent = 'Finished';
      $('summary-more').textContent = 'Everything is on disk, and wsltool has ended. ' +
        'You can close this window. Next:';
    });
  }

  /* ---- the enlarged view ---- */
  async function zoom(number, again = false) {
    const asked = ++zooms, here = place, one = classes[place];
    zoomed = (number + one.pictures.length) % one.pictures.length;
    const [name, width, height] = one.pictures[zoomed];
    const images = await stripsOf(place);
    if (asked !== zooms || here !== place || (again && !$('zoom').open)) return;  // gone meanwhile
    $('zoom-name').textContent = (zoomed + 1) + ' of ' + one.pictures.length + ' · ' + name;
    const figures = one.sizes.map((_, cluster) => {
      const canvas = make('canvas', {width, height, role: 'img', 'aria-label': name});
      draw(canvas, images, zoomed, cluster, bare);
      const word = draftOf(place).words[cluster];
      return make('figure', {}, canvas,
        make('figcaption', {}, (cluster + 1) + ' · ' + SIGNS[word] + ' ' + word));
    });
    $('zoom-pictures').style.setProperty('--num', figures.length);
    $('zoom-pictures').replaceChildren(...figures);
    if (!$('zoom').open) $('zoom').showModal();
  }

  /* ---- keys and buttons ---- */
  function leave(dialog) {  // at once: the next key is for the page, not for a button that is gone
    dialog.close();
    if (dialog.contains(document.activeElement)) document.activeElement.blur();
  }
  function numberOf(event) {
    const found = /^(?:Digit|Numpad)([1-9])$/.exec(event.code) || /^([1-9])$/.exec(event.key);
    return found && Number(found[1]) <= classes[place].sizes.length ? Number(found[1]) - 1 : -1;
  }
  function onKey(event) {
    const dialog = document.querySelector('dialog[open]');
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.altKey || (event.metaKey || event.ctrlKey) && name !== 'z') return;
    if (ended || place < 0) return;
    if (dialog && dialog.id !== 'zoom') {
      if (dialog.id === 'summary' && name === 'f' && !event.repeat) $(serves ? 'end' : 'download').click();
      return;
    }
    const cluster = numberOf(event);
    if (cluster >= 0) { if (event.shiftKey) set(cluster, 'unsure'); else toggle(cluster); }
    else if (name === 'p') { if (!event.repeat) { pressed = performance.now(); setBare(!bare); } }
    else if (dialog && name === 'ArrowRight') zoom(zoomed + 1);
    else if (dialog && name === 'ArrowLeft') zoom(zoomed - 1);
    else if (dialog && name === 'Escape') leave(dialog);
    else if (dialog) return;
    else if (name === 'Enter') {
      if (event.target.closest('button')) return;
      if (!event.repeat) confirm();
    } else if (name === 'ArrowRight') step(1);
    else if (name === 'ArrowLeft') step(-1);
    else if (name === 'z' || name === 'Backspace') undo();
    else if (name === 'u') unsureAll();
    else if (name === 'f') summary();
    else if (name === '?') keys();
    else return;
    event.preventDefault();
  }
  let pressed = 0;
  document.addEventListener('keydown', event => { if (!event.repeat) tick(); onKey(event); });
  document.addEventListener('keyup', event => {
    if (event.key.toLowerCase() === 'p' && pressed && performance.now() - pressed > 400) setBare(!bare);
    if (event.key.toLowerCase() === 'p') pressed = 0;
  });
  function tick() { count(); $('clock').textContent = duration(spent.get(place) || 0); }
  document.addEventListener('pointerdown', tick);
  addEventListener('resize', () => { if (place >= 0) arrange(); });
  document.addEventListener('visibilitychange', () => count(document.hidden));
  setInterval(() => {
    if (place >= 0) $('clock').textContent = duration((spent.get(place) || 0) + running());
  }, 1000);
  const click = (id, work) => $(id).addEventListener('click', event => {
    if (event.detail) event.currentTarget.blur();
    work();
  });
  click('confirm', confirm);
  click('undo', undo);
  click('back', () => step(-1));
  click('skip', () => step(1));
  click('finish', () => summary());
  click('help', keys);
  click('bare', () => setBare(!bare));
  click('download', download);
  click('end', () => { if (serves) end(); else $('summary').close(); });
  for (const button of document.querySelectorAll('[data-close]'))
    button.addEventListener('click', () => leave(button.closest('dialog')));
  for (const button of document.querySelectorAll('[data-step]'))
    button.addEventListener('click', () => zoom(zoomed + Number(button.dataset.step)));
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', event => {
      if (event.target === dialog && !ended) dialog.close();
    });
    dialog.addEventListener('cancel', event => { if (ended) event.preventDefault(); });
    dialog.addEventListener('close', () => { since = performance.now(); });
  }

  $('scale').style.background = 'linear-gradient(90deg,' + BOARD.palette.map(([r, g, b, a]) =>
    'rgb(' + r + ' ' + g + ' ' + b + '/' + a / 255 + ')').join() + ')';
  for (const node of document.querySelectorAll('.source')) node.textContent = SOURCE;
  if (!gainKnown) $('gain-name').textContent = 'classes left';
  $('download').hidden = serves;
  if (!serves) $('end').textContent = 'Close';
  $('end').className = serves ? 'main' : '';
  $('download').className = 'main';
  for (const [index, one] of answers) spent.set(index, one.seconds || 0);
  history.push(...[...answers].sort((a, b) => String(a[1].answered).localeCompare(b[1].answered))
    .map(([index]) => ({index, before: undefined})));
  if (!classes.length) {
    $('name').textContent = 'No class has clusters';
    $('position').textContent = BOARD.title;
    for (const button of document.querySelectorAll('footer button')) button.disabled = true;
    $('finish').disabled = false;
  } else {
    const first = next(-1);
    show(first >= 0 ? first : classes.length - 1);
    if (first < 0) summary(false);
  }
})();
