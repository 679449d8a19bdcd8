'use strict';
/* Elements, words for numbers, strips of pictures, and how large they are shown. */
const DRAWING = (() => {
  const classes = BOARD.classes;
  const strips = new Map();

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const percent = share => Math.round(100 * share) + ' %';
  function duration(seconds) {
    if (seconds < 59.5) return Math.round(seconds) + ' s';
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? minutes + ' min' : Math.floor(minutes / 60) + ' h ' + minutes % 60 + ' min';
  }
  function stripsOf(index) {
    if (!strips.has(index)) strips.set(index, classes[index].files.map(name => {
      const image = new Image();
      image.src = 'pictures/' + name;
      return image.decode().then(() => image, () => null);
    }));
    return Promise.all(strips.get(index));
  }
  function draw(canvas, images, number, cluster, bare) {
    const {width, height} = canvas;
    const pen = canvas.getContext('2d');
    const from = [number * BOARD.place_px, 0, width, height, 0, 0, width, height];
    pen.clearRect(0, 0, width, height);
    if (images[0]) pen.drawImage(images[0], ...from);
    if (images[cluster + 1] && !bare) pen.drawImage(images[cluster + 1], ...from);
  }
  /* The largest tiles with which all clusters fit on the screen at once; failing that, scroll. */
  function layout({sizes, pictures}, wide, high) {
    const num = Math.max(1, pictures.length);
    const ratio = Math.min(1.5, Math.max(0.75, pictures.length
      ? ANSWERS.median(pictures.map(([, width, height]) => width / height)) : 1));
    let best = {across: wide > 760 ? Math.min(2, sizes.length) : 1, cols: 4, tile: 0, ratio};
    for (let across = 1; across <= sizes.length; across++) {
      const panel = (wide - (across - 1) * 12) / across - 18;
      if (panel < 330) break;
      const each = high / Math.ceil(sizes.length / across) - 12 - (wide > 760 ? 58 : 50);
      for (let cols = 2; cols <= num; cols++) {
        const tile = Math.min((panel - (cols - 1) * 4) / cols, 1.25 * BOARD.place_px,
          ratio * (each / Math.ceil(num / cols) - 4));
        if (tile >= 72 && tile > best.tile) best = {across, cols, tile, ratio};
      }
    }
    return best;
  }
  return {draw, duration, layout, make, percent, strips, stripsOf};
})();
