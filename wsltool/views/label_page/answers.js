'use strict';
/* The answers to BOARD: behind the server on disk, or in this browser; and numbers about them. */
const ANSWERS = (() => {
  const serves = BOARD.mode === 'server';
  const classes = BOARD.classes;
  const key = 'wsltool-labels:' + BOARD.digest;
  const answers = new Map();

  function recall() {
    let kept = BOARD.answers;
    if (!serves) {
      try { kept = JSON.parse(localStorage.getItem(key) || '{}'); } catch { kept = {}; }
    }
    for (const [index, answer] of Object.entries(kept)) {
      const one = classes[index];
      if (!one || !Array.isArray(answer.words) || answer.words.length !== one.sizes.length) continue;
      answers.set(Number(index), answer);
    }
  }
  async function send(path, body) {
    let reply;
    try {
      reply = await fetch(path, {method: 'POST', body: JSON.stringify(body),
        headers: {'Content-Type': 'application/json'}, signal: AbortSignal.timeout(20000)});
    } catch {
      throw new Error('wsltool does not answer. What was answered before is on disk: run the same ' +
        'command again, and open the address that it prints.');
    }
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(told.error || 'wsltool answers ' + reply.status + '.');
    return told;
  }
  async function keep(index, words, spent) {
    const seconds = words && Math.round(10 * spent) / 10;
    if (serves) {
      const told = await send('answer', {place: index, words, seconds});
      if (words) answers.set(index, told); else answers.delete(index);
      return;
    }
    const before = answers.get(index);
    const answered = new Date().toISOString().replace(/\.\d+Z$/, '+00:00');
    if (words) answers.set(index, {words, seconds, answered}); else answers.delete(index);
    try {
      localStorage.setItem(key, JSON.stringify(Object.fromEntries(answers)));
    } catch {
      if (before) answers.set(index, before); else answers.delete(index);
      throw new Error('this browser keeps nothing for this page. Open it in another browser.');
    }
  }
  function labelsText() {
    const rows = [...answers].sort((a, b) => a[0] - b[0]).map(([index, one]) => '  ' +
      JSON.stringify({class: classes[index].index, name: classes[index].name, clusters: one.words,
        seconds: one.seconds, answered: one.answered}));
    const head = Object.entries(BOARD.labels_head).map(([name, value]) =>
      ' ' + JSON.stringify(name) + ': ' + JSON.stringify(value) + ',\n').join('');
    return '{\n' + head + ' "classes": [\n' + rows.join(',\n') + '\n ]\n}\n';
  }
  function download() {
    const url = URL.createObjectURL(new Blob([labelsText()], {type: 'application/json'}));
    const link = document.createElement('a');
    link.href = url;
    link.download = BOARD.labels_name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function median(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }
  /* The paper's curve is of 1000 classes; of few it would promise too much. */
  const gainKnown = classes.length >= 100;
  const gained = () => [...answers.keys()].reduce((sum, index) => sum + classes[index].gain, 0);
  const timed = () => [...answers.values()].map(one => one.seconds).filter(s => s > 0);
  recall();
  return {answers, download, gainKnown, gained, keep, median, send, serves, timed};
})();
