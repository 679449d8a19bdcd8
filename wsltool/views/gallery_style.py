"""Style sheet and script of the gallery page. Both are constants: no value enters them."""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPT", "STYLE"]

STYLE: Final = """
:root{color-scheme:light dark;--page:#f4f5f7;--card:#fff;--mat:#e6e8ec;--ink:#15181e;--soft:#5c6470;
 --line:#dcdfe5;--accent:#0b7a75;--miss:#b3401f;--none:#626a76;--base:#a4abb7;--round:10px}
@media(prefers-color-scheme:dark){:root{--page:#101216;--card:#1a1d23;--mat:#0a0b0e;--ink:#eceef2;
 --soft:#9aa3b0;--line:#2b3039;--accent:#3fc1b6;--miss:#ff8d66;--none:#9aa3b0;--base:#646d7b}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:96px}
body{margin:0;background:var(--page);color:var(--ink);
 font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header>div,.tools>div{max-width:1560px;margin:0 auto;padding:0 24px}
a{color:inherit}
h1{font-size:26px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:19px;margin:0}
.lead{color:var(--soft);margin:2px 0 14px;max-width:75ch}
header{background:var(--card);border-bottom:1px solid var(--line);padding:28px 0 24px}
.facts{display:flex;flex-wrap:wrap;gap:6px 22px;margin:8px 0 0;color:var(--soft)}
.facts div{display:flex;gap:6px;min-width:0}.facts dt,.facts dd{margin:0;overflow-wrap:anywhere}
.facts dd{color:var(--ink);font-weight:600}
.scores{display:flex;flex-wrap:wrap;gap:20px 44px;align-items:center;margin-top:22px}
.hero b{display:block;font-size:54px;line-height:1;letter-spacing:-.03em;color:var(--accent);
 font-variant-numeric:tabular-nums}
.hero b small{font-size:.5em;margin-left:.1em}
.hero span{color:var(--soft);display:block;margin-top:6px;max-width:34ch}
.bars{display:grid;grid-template-columns:minmax(90px,max-content) minmax(60px,1fr) max-content;
 gap:7px 14px;align-items:center;flex:1 1 420px;max-width:860px;margin:0}
.bars dt{overflow-wrap:anywhere}.bars dd{margin:0;display:contents}.bars .floor{color:var(--soft)}
.number{min-width:7ch;font-variant-numeric:tabular-nums;font-weight:600;text-align:right}
.bar{display:block;width:100%;height:10px;border-radius:5px;background:var(--line)}
.bar rect{fill:var(--accent)}.bar.floor rect{fill:var(--base)}
.tools{position:sticky;top:0;z-index:5;background:var(--page);border-bottom:1px solid var(--line)}
.tools>div{display:flex;flex-wrap:wrap;gap:8px 18px;align-items:center;padding-top:9px;
 padding-bottom:9px;font-size:14px}
.tools nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin-right:auto}
.tools nav a{text-decoration:none;color:var(--soft);white-space:nowrap}
.tools nav a:hover{color:var(--ink);text-decoration:underline}
.keys{display:flex;flex-wrap:wrap;gap:8px}
button,.plate{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
 border-radius:8px;padding:4px 11px;display:inline-flex;align-items:center;gap:8px;
 text-decoration:none}
button,.flat{cursor:pointer}button:hover,.flat:hover{border-color:var(--soft)}
button[aria-pressed=false]{opacity:.5;text-decoration:line-through}
kbd{font:600 11px/1 ui-monospace,SFMono-Regular,Menlo,monospace;color:var(--soft);
 border:1px solid var(--line);border-radius:4px;padding:2px 4px}
.sign{width:28px;height:18px;border-radius:2px;flex:none}
.sign.map{width:64px;height:14px;background:var(--heat)}
.sign.predicted{background:#0c0e16;border:3px solid var(--predicted)}
.sign.latter{background:#0c0e16;border:3px solid var(--latter)}
.sign.former{background:#0c0e16;border:3px dotted var(--former)}
.sign.earlier{background:#0c0e16;border:2px solid var(--earlier)}
.sign.current{background:#0c0e16;border:3px solid var(--current)}
.sign.true{background:#0c0e16;border:3px dashed var(--true)}
.sign.contour{background:#7a2d8c;border:2px solid #fff;
 border-radius:8px;outline:1px solid var(--line)}
section{margin:34px 0 0}
.grid{display:grid;gap:16px;grid-template-columns:repeat(4,minmax(0,1fr))}
@media(min-width:1500px){.grid{grid-template-columns:repeat(6,minmax(0,1fr))}}
@media(max-width:1000px){.grid{grid-template-columns:repeat(3,minmax(0,1fr))}}
.card{margin:0;background:var(--card);border:1px solid var(--line);border-radius:var(--round);
 overflow:hidden;min-width:0;display:flex;flex-direction:column}
.card:hover{border-color:var(--soft)}
.tile{position:relative;aspect-ratio:4/3;background:var(--mat);display:grid;place-items:center;
 padding:3px;cursor:zoom-in;overflow:hidden}
.tile:focus-visible{outline:3px solid var(--accent);outline-offset:-3px}
.frame{position:relative;display:block;aspect-ratio:var(--ratio);
 width:min(100%,calc(74% * var(--ratio)))}
.frame>*{position:absolute;inset:0;width:100%;height:100%;display:block}
.frame svg{overflow:visible}
.frame svg *{fill:none;vector-effect:non-scaling-stroke}
.dark{stroke:#0c0e16;stroke-width:4.5px;opacity:.85}
.predicted .lit{stroke:var(--predicted);stroke-width:2.25px}
.latter .lit{stroke:var(--latter);stroke-width:2.25px}
.former .lit{stroke:var(--former);stroke-width:2.5px;stroke-dasharray:3.5 2}
.true .lit{stroke:var(--true);stroke-width:2.25px;stroke-dasharray:7 5}
.true .dark{stroke-dasharray:7 5}
.earlier .lit{stroke:var(--earlier);stroke-width:1.25px}
.current .lit{stroke:var(--current);stroke-width:1.75px}.current .dark{stroke-width:3.25px}
.best .lit{stroke-width:3.5px}.best .dark{stroke-width:6px}
.stage .dark{stroke-width:6px}.stage .lit{stroke-width:3px}
.stage .earlier .lit{stroke-width:1.75px}.stage .current .dark{stroke-width:4px}
.stage .current .lit{stroke-width:2.25px}.stage .best .dark{stroke-width:8px}
.stage .best .lit{stroke-width:5px}
.stage .true *{stroke-dasharray:11 7}.stage .former .lit{stroke-dasharray:5 3}
.peak path{stroke-linecap:round;stroke-width:9px}.peak.other path{stroke-linecap:square;
 stroke-width:7px}
.peak .dark{stroke-width:14px;opacity:1}.peak.other .dark{stroke-width:11.5px}
.peak .white{stroke:#fff;stroke-width:12px}.peak.other .white{stroke-width:9.5px}
.peak.first .lit{stroke:var(--first)}.peak.other .lit{stroke:var(--other)}
.stage .peak path{stroke-width:14px}.stage .peak .white{stroke-width:18px}
.stage .peak .dark{stroke-width:21px}
.sign.first,.sign.other{width:14px;height:14px;border:2px solid #fff;outline:1px solid #0c0e16}
.sign.first{border-radius:50%;background:var(--first)}.sign.other{background:var(--other)}
.contour path{stroke:#fff;stroke-width:1.1px;opacity:.9}
.no-map .heat,.no-map .frame .contour,.no-boxes .predicted,.no-boxes .true,
.no-boxes .former,.no-boxes .latter,.no-boxes .earlier,.no-boxes .current{visibility:hidden}
.bare .heat,.bare svg{visibility:hidden}
.meter{position:relative;height:4px;background:var(--line)}
.meter i{position:absolute;inset:0 auto 0 0;background:var(--miss)}
.hit .meter i{background:var(--accent)}
.meter s{position:absolute;top:-2px;bottom:-2px;width:2px;margin-left:-1px;background:var(--ink)}
figcaption{padding:9px 12px 11px;min-width:0}
.first{display:flex;gap:10px;align-items:baseline;justify-content:space-between}
.name{font-weight:600;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.chip{font-weight:700;font-variant-numeric:tabular-nums;white-space:nowrap;color:var(--miss)}
.hit .chip{color:var(--accent)}.none .chip{color:var(--none);font-weight:600}
.second{display:flex;gap:10px;justify-content:space-between;color:var(--soft);font-size:13px}
.id{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12px;min-width:0;
 overflow:hidden;text-overflow:ellipsis;white-space:nowrap;unicode-bidi:isolate}
.second .score{white-space:nowrap}
.remark{color:var(--soft);font-size:13px;overflow:hidden;display:-webkit-box;-webkit-line-clamp:2;
 -webkit-box-orient:vertical;overflow-wrap:anywhere}
.more{display:none}
.class{display:grid;grid-template-columns:minmax(200px,260px) minmax(0,1fr);gap:10px 26px;
 padding:16px 0;border-top:1px solid var(--line)}
.class h3{font-size:16px;margin:0;overflow-wrap:anywhere}
.class .count{color:var(--soft);font-size:13px;margin-bottom:8px}
.class .bars{grid-template-columns:max-content minmax(40px,1fr) max-content;font-size:13px;
 gap:5px 10px}
.strip{display:grid;gap:12px;grid-template-columns:repeat(4,minmax(0,1fr))}
.strip figcaption{padding:6px 9px 7px;font-size:13px}
.strip .name,.strip .remark,.strip .score{display:none}
.strip .first{float:right;margin-left:8px}.strip .second{font-size:12px}
.panels .strip{grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr))}
.levels .strip{grid-template-columns:repeat(auto-fit,minmax(min(100%,180px),1fr))}
.panels .strip .name,.panels .strip .score{display:block}.panels .strip .id{display:none}
.panels .strip .first{float:none;margin:0}.class .count.id{white-space:normal;
 overflow-wrap:anywhere}
.empty{color:var(--soft);border:1px dashed var(--line);border-radius:var(--round);padding:22px;
 text-align:center}
.absent{color:var(--soft);border-top:1px solid var(--line);padding-top:14px;overflow-wrap:anywhere}
footer{margin:40px 0 0;padding:18px 0 40px;border-top:1px solid var(--line)}
footer dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:3px 18px;margin:10px 0 0;
 font-size:13px}
footer dt{color:var(--soft)}
footer dd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,SFMono-Regular,Menlo,monospace}
dialog{border:0;padding:0;margin:0;inset:0;width:100%;height:100%;max-width:none;max-height:none;
 background:#0b0c0f;color:#eceef2;color-scheme:dark;--card:#1a1d23;--line:#353b46;--ink:#eceef2;
 --soft:#a7afbb;--accent:#3fc1b6;--miss:#ff8d66;--none:#a7afbb}
dialog[open]{display:grid;grid-template:auto minmax(0,1fr)/minmax(0,1fr) 320px}
dialog .head{grid-column:1/-1;display:flex;flex-wrap:wrap;gap:8px;align-items:center;
 padding:10px 16px;border-bottom:1px solid var(--line)}
dialog .place{margin-right:auto;color:var(--soft);font-variant-numeric:tabular-nums}
.stage{display:grid;place-items:center;min-width:0;container-type:size}
.stage .frame{width:min(94cqw,calc(94cqh * var(--ratio)))}
.side{overflow:auto;border-left:1px solid var(--line)}
.side figcaption{padding:18px}
.side .name{font-size:19px;white-space:normal;overflow-wrap:anywhere}.side .chip{font-size:19px}
.side .second,.side .remark{display:none}
.side .more{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:5px 14px;margin:16px 0;
 font-size:13px}
.side dt{color:var(--soft)}.side dd{margin:0;overflow-wrap:anywhere;white-space:pre-line}
@media(max-width:760px){
 main,header>div,.tools>div{padding-left:14px;padding-right:14px}
 header{padding:20px 0}h1{font-size:21px}.hero b{font-size:44px}
 .tools{position:static}.tools>div>.keys kbd{display:none}
 .grid{grid-template-columns:repeat(2,minmax(0,1fr));gap:10px}
 .grid figcaption{padding:7px 9px 9px}.grid .score{display:none}
 .grid .first{flex-wrap:wrap;gap:0 8px}
 .class{grid-template-columns:minmax(0,1fr)}.strip{gap:6px}
 .strip .second{display:none}.strip .first{float:none;margin:0;justify-content:center}
 .bars{grid-template-columns:minmax(0,11ch) minmax(60px,1fr) max-content;flex-basis:100%}
 footer dl{grid-template-columns:minmax(0,1fr)}footer dd{margin-bottom:6px}
 dialog[open]{grid-template:auto minmax(0,1fr) auto/minmax(0,1fr)}
 .side{border:0;max-height:34dvh}.side figcaption{padding:12px 14px}
 dialog kbd{display:none}button{flex-wrap:wrap}
}
@media(max-width:760px){.panels .strip{grid-template-columns:repeat(auto-fit,minmax(130px,1fr))}
 .panels .strip .first{flex-wrap:wrap;gap:0 8px;justify-content:space-between}}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{.tools{display:none}.card,.class{break-inside:avoid}}
"""

SCRIPT: Final = """
'use strict';
(() => {
  const cards = [...document.querySelectorAll('.card')];
  const dialog = document.querySelector('dialog');
  const stage = dialog.querySelector('.stage');
  const side = dialog.querySelector('.side');
  let now = -1;

  function remember(hash) {
    try { history.replaceState(null, '', hash); } catch { /* a browser that forbids it */ }
  }
  function show(index) {
    now = (index + cards.length) % cards.length;
    const card = cards[now];
    const frame = card.querySelector('.frame').cloneNode(true);
    for (const picture of frame.querySelectorAll('img')) picture.loading = 'eager';
    stage.replaceChildren(frame);
    side.replaceChildren(card.querySelector('figcaption').cloneNode(true));
    side.className = 'side ' + card.className.replace('card', '');
    dialog.querySelector('.place').textContent =
      card.closest('section').dataset.name + ' · ' + (now + 1) + ' / ' + cards.length;
    dialog.querySelector('.flat').href = card.querySelector('.tile').href;
    if (!dialog.open) dialog.showModal();
    remember('#' + card.id);
  }
  function toggle(what) {
    const off = document.body.classList.toggle('no-' + what);
    for (const button of document.querySelectorAll('button[data-toggle=' + what + ']'))
      button.setAttribute('aria-pressed', String(!off));
  }
  function bare(on) { document.body.classList.toggle('bare', on); }

  cards.forEach((card, index) => card.querySelector('.tile').addEventListener('click', event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(index);
  }));
  for (const button of document.querySelectorAll('button[data-toggle]'))
    button.addEventListener('click', () => toggle(button.dataset.toggle));
  dialog.querySelector('.back').addEventListener('click', () => show(now - 1));
  dialog.querySelector('.next').addEventListener('click', () => show(now + 1));
  dialog.querySelector('.close').addEventListener('click', () => dialog.close());
  stage.addEventListener('click', event => { if (event.target === stage) dialog.close(); });
  dialog.addEventListener('close', () => {
    bare(false);
    remember('#');
    cards[now].querySelector('.tile').focus();
  });
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === 'm') toggle('map');
    else if (key === 'b') toggle('boxes');
    else if (key === 'p') bare(true);
    else if (!dialog.open) return;
    else if (key === 'arrowright') show(now + 1);
    else if (key === 'arrowleft') show(now - 1);
    else if (key === 'home') show(0);
    else if (key === 'end') show(cards.length - 1);
    else return;
    event.preventDefault();
  });
  document.addEventListener('keyup', event => {
    if (event.key.toLowerCase() === 'p') bare(false);
  });
  window.addEventListener('blur', () => bare(false));
  function follow() {
    const index = cards.findIndex(card => '#' + card.id === location.hash);
    if (index >= 0) show(index);
  }
  window.addEventListener('hashchange', follow);
  follow();
})();
"""
