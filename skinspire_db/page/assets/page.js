"use strict";
// Data becomes text nodes and attributes only, never markup.
const SVG = "http://www.w3.org/2000/svg", DRAWN = 40, MAPPED = 80, SHOWN = 60, LISTED = 200;
const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const number = (value) => (value === null || value === undefined ? "" : Number(value).toLocaleString("en"));
const size = (bytes) => {
  if (bytes === null || bytes === undefined) return "";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1024) return `${bytes < 10 && unit !== "B" ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} TB`;
};
const moment = (value) => (value ? String(value).slice(0, 16).replace("T", " ") : "");
const plural = (count, noun) => `${number(count)} ${count === 1 ? noun : noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
const route = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// One environment's data, with its tables by name and the foreign keys of each.
function database(contents) {
  const schema = contents.parts.schema || { tables: [], foreign_keys: [], functions: [], notes: [], about: {}, extensions: [], sequences: [] };
  const tables = new Map(schema.tables.map((table) => [nameOf(table), table]));
  const from = new Map(), to = new Map();
  for (const key of schema.foreign_keys) {
    const child = nameOf(key), parent = nameOf({ schema: key.references_schema, table: key.references_table });
    Object.assign(key, { child, parent });
    from.set(child, [...(from.get(child) || []), key]);
    to.set(parent, [...(to.get(parent) || []), key]);
  }
  return { ...contents, schema, tables, from, to };
}
const nameOf = (row) => (row.schema === "public" ? row.table : `${row.schema}.${row.table}`);

let here, there, entries = [];

// What two environments have of one list, by name: [mine, theirs, whether they differ].
function paired(mine, theirs, name, text) {
  const others = new Map((theirs || []).map((row) => [row[name], row]));
  const pairs = (mine || []).map((row) => {
    const other = others.get(row[name]);
    others.delete(row[name]);
    return [row, other, !other || text(row) !== text(other)];
  });
  return [...pairs, ...[...others.values()].map((row) => [null, row, true])];
}
const LISTS = {
  columns: ["column", (row) => [row.type, row.nullable ? "NULL" : "NOT NULL", row.made_by, row.default && `DEFAULT ${row.default}`].filter(Boolean).join(" ")],
  constraints: ["constraint", (row) => row.definition || ""],
  indexes: ["index", (row) => row.definition || ""],
  triggers: ["trigger", (row) => row.definition || ""],
  policies: ["policy", (row) => [row.command, row.roles.join(", "), row.using && `USING ${row.using}`, row.with_check && `WITH CHECK ${row.with_check}`].filter(Boolean).join(" ")],
  keys: ["constraint", (row) => row.definition || ""],
};
function differences(name) {
  if (!there) return [];
  const mine = here.tables.get(name), theirs = there.tables.get(name);
  if (!mine || !theirs) return [`only in ${(mine ? here : there).environment}`];
  const lists = (side, table) => ({ ...table, keys: side.from.get(name) });
  const left = lists(here, mine), right = lists(there, theirs);
  const found = Object.entries(LISTS).flatMap(([part, [key, text]]) =>
    paired(left[part], right[part], key, text).filter((pair) => pair[2]).map(([one, two]) => `${part === "keys" ? "foreign keys" : part}: ${(one || two)[key]}`));
  return found.concat(mine.definition !== theirs.definition ? ["definition"] : []);
}

function cell(value) {
  if (value instanceof Node) return value;
  return Array.isArray(value) ? value : String(value ?? "");
}
// Rows as a table, at first no more than `most` of very many. A heading that begins with # is of numbers.
function grid(label, headings, rows, marked = [], most = LISTED) {
  if (!rows.length) return h("p", { class: "soft" }, "none");
  if (rows.length > most * 1.5) {
    const all = () => part.replaceWith(grid(label, headings, rows, marked, Infinity));
    const part = h("div", {}, grid(label, headings, rows.slice(0, most), marked), h("p", {}, h("button", { type: "button", onclick: all }, `All ${number(rows.length)}`)));
    return part;
  }
  const kind = headings.map((heading) => (heading.startsWith("#") ? "number" : null));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, headings.map((heading, i) => h("th", { scope: "col", class: kind[i] }, heading.replace("#", ""))))),
      h("tbody", {}, rows.map((row, at) => h("tr", { class: marked[at] ? "differs" : null }, row.map((value, i) => h("td", { class: kind[i] }, cell(value))))))));
}
const code = (text) => (text ? h("code", {}, text) : "");
const folded = (title, text) => h("details", {}, h("summary", {}, title), h("pre", { tabindex: "0" }, text));
const tableLink = (name) => h("a", { href: route("table", name) }, name);
const section = (title, ...children) => h("section", {}, h("h2", {}, title), children);
const bar = (value, most) => {
  const node = h("span", { class: "bar", "aria-hidden": "true" });
  node.style.width = `${most ? Math.round((100 * (value || 0)) / most) : 0}%`;
  return node;
};
// A list of a table beside the other environment's, what differs marked.
function compared(title, part, mine, theirs, headings, row) {
  const [key, text] = LISTS[part];
  if (!there) return section(title, grid(title, headings, (mine || []).map(row)));
  const pairs = paired(mine, theirs, key, text);
  const beside = ([one, two, differs]) => [...(one ? row(one) : [two[key], ...headings.slice(1).map(() => "")]),
    !differs ? "the same" : !one ? ["only here: ", code(text(two))] : two ? code(text(two)) : "not there"];
  return section(title, grid(title, [...headings, `in ${there.environment}`], pairs.map(beside), pairs.map((pair) => pair[2])));
}

// Drawings: nodes [name, lines] and edges laid out by dagre, in an SVG that can be zoomed and moved.
function drawing(label, nodes, edges, options = {}) {
  const graph = new dagre.graphlib.Graph({ multigraph: true }).setGraph({ rankdir: "LR", nodesep: 22, ranksep: 70, marginx: 14, marginy: 14 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const node of nodes) {
    const longest = Math.max(...[node.title, ...node.lines].map((line) => [...line].length));
    graph.setNode(node.name, { node, width: Math.min(Math.max(longest * 7.6 + 24, 110), 420), height: 30 + node.lines.length * 18 + (node.lines.length ? 8 : 0) });
  }
  const loops = new Map(edges.filter((edge) => edge.parent === edge.child).map((edge) => [edge.parent, edge]));
  edges.filter((edge) => edge.parent !== edge.child).forEach((edge, at) => graph.setEdge(edge.parent, edge.child, { edge }, String(at)));
  dagre.layout(graph);
  const lines = graph.edges().map((each) => {
    const { points, edge } = graph.edge(each), last = points.length - 1;
    const at = (point) => `${point.x.toFixed(1)} ${point.y.toFixed(1)}`, middle = (one, two) => ({ x: (one.x + two.x) / 2, y: (one.y + two.y) / 2 });
    const path = `M${at(points[0])}${points.slice(1, -1).map((point, i, inner) => `Q${at(point)} ${at(i + 1 < inner.length ? middle(point, inner[i + 1]) : points[last])}`).join("")}${last < 2 ? `L${at(points[last])}` : ""}`;
    const tip = points[0], next = points[Math.min(1, last)], angle = (Math.atan2(next.y - tip.y, next.x - tip.x) * 180) / Math.PI;
    return s("g", {}, s("title", {}, edge.label), s("path", { class: "edge", d: path }),
      s("path", { class: "tip", d: "M0 0L9 -4L9 4Z", transform: `translate(${tip.x} ${tip.y}) rotate(${angle})` }),
      s("circle", { class: "tip", r: 3, cx: points[last].x, cy: points[last].y }));
  });
  const boxes = graph.nodes().map((name) => {
    const { node, x, y, width, height } = graph.node(name);
    const cut = (line) => ([...line].length * 7.6 + 24 > 420 ? `${[...line].slice(0, 50).join("")}…` : line);
    return s("a", { href: node.href, class: [node.here && "here", node.differs && "differs"].filter(Boolean).join(" ") || null, transform: `translate(${x - width / 2} ${y - height / 2})`, "aria-label": node.label },
      loops.has(name) && s("path", { class: "edge", d: `M${width - 16} 0C${width - 16} -14 ${width + 14} -14 ${width + 14} 8S${width + 8} 15 ${width} 15` }, s("title", {}, loops.get(name).label)),
      s("rect", { class: "box", width, height, rx: 6 }), s("path", { class: "top", d: `M1 7Q1 1 7 1H${width - 7}Q${width - 1} 1 ${width - 1} 7V27H1Z` }),
      s("text", { class: "title", x: 12, y: 19 }, cut(node.title)),
      node.lines.map((line, i) => s("text", { x: 12, y: 46 + i * 18, class: "soft" }, cut(line))));
  });
  const { width, height } = graph.graph();
  return zoomed(label, s("svg", { role: "group", "aria-label": label }, lines, boxes), Number.isFinite(width) ? width : 100, Number.isFinite(height) ? height : 50, options);
}

function zoomed(label, svg, width, height) {
  const tall = Math.min(Math.max(height, 120), 560);
  let view;
  const show = () => svg.setAttribute("viewBox", view.map((value) => value.toFixed(2)).join(" "));
  const fit = () => { view = [0, 0, width, height]; show(); };
  const zoom = (factor) => { view = [view[0] + (view[2] * (1 - factor)) / 2, view[1] + (view[3] * (1 - factor)) / 2, view[2] * factor, view[3] * factor]; show(); };
  const move = (x, y) => { view[0] += x * view[2]; view[1] += y * view[3]; show(); };
  const keys = { "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), 0: fit, ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1) };
  svg.style.height = `${tall}px`;
  fit();
  let drag = null;
  const frame = h("div", { class: "drawing", tabindex: "0", role: "region", "aria-label": `${label}: plus, minus, 0 and the arrow keys zoom and move`,
    onkeydown: (event) => { if (keys[event.key] && !event.ctrlKey && !event.metaKey) { keys[event.key](); event.preventDefault(); } },
    onwheel: (event) => { if (event.ctrlKey) { zoom(event.deltaY < 0 ? 0.85 : 1.18); event.preventDefault(); } },
    onpointerdown: (event) => { drag = [event.clientX, event.clientY]; },
    onpointermove: (event) => {
      if (!drag || !event.buttons) return;
      const scale = Math.max(view[2] / svg.clientWidth, view[3] / svg.clientHeight);
      view[0] -= (event.clientX - drag[0]) * scale; view[1] -= (event.clientY - drag[1]) * scale;
      drag = [event.clientX, event.clientY]; show();
    },
    onpointerup: () => { drag = null; } }, svg);
  const button = (text, name, act) => h("button", { type: "button", "aria-label": name, onclick: act }, text);
  return [frame, h("div", { class: "tools" }, button("+", "Zoom in", keys["+"]), button("−", "Zoom out", keys["-"]), button("Fit", "Fit the drawing", fit))];
}

function tableNode(name, chosen) {
  const table = here.tables.get(name), keyed = new Set((here.from.get(name) || []).flatMap((key) => key.columns));
  const columns = table ? table.columns.filter((column) => column.primary_key || keyed.has(column.column)) : [];
  const lines = columns.slice(0, 9).map((column) => `${column.primary_key ? "● " : "→ "}${column.column}`);
  const rest = table ? table.columns.length - lines.length : 0;
  return { name, title: name, href: route("table", name), here: name === chosen, differs: differences(name).length > 0,
    lines: rest ? [...lines, `+ ${plural(rest, "column")}`] : lines, label: `table ${name}` };
}
const edgesAmong = (names) => [...names].flatMap((name) => (here.from.get(name) || []).filter((key) => names.has(key.parent)))
  .map((key) => ({ child: key.child, parent: key.parent, label: `${key.child} (${key.columns.join(", ")}) → ${key.parent}` }));

function neighbours(name, steps) {
  const found = new Set([name]);
  let edge = [name], left = 0;
  for (let step = 0; step < steps; step++) {
    const next = new Set(edge.flatMap((each) => [...(here.from.get(each) || []).map((key) => key.parent), ...(here.to.get(each) || []).map((key) => key.child)]));
    edge = [...next].filter((each) => !found.has(each));
    for (const each of edge) found.size < DRAWN ? found.add(each) : left++;
  }
  return [found, left];
}

function treemap() {
  const tables = here.schema.tables.filter((table) => table.bytes).sort((one, two) => two.bytes - one.bytes).slice(0, 200);
  const svg = s("svg", { role: "group", "aria-label": "Tables by size", viewBox: "0 0 1000 320" });
  const all = tables.reduce((sum, table) => sum + table.bytes, 0);
  let [x, y, width, height, rest] = [0, 0, 1000, 320, all];
  for (let at = 0; at < tables.length;) {
    const short = Math.min(width, height), area = (width * height) / rest;
    let row = [], sum = 0, worst = Infinity;
    while (at + row.length < tables.length) {
      const bytes = tables[at + row.length].bytes, side = ((sum + bytes) * area) / short;
      const ratio = Math.max(...[...row, tables[at + row.length]].map((table) => { const other = (table.bytes * area) / side; return Math.max(side / other, other / side); }));
      if (ratio > worst) break;
      row.push(tables[at + row.length]); sum += bytes; worst = ratio;
    }
    const side = (sum * area) / short;
    let along = 0;
    for (const table of row) {
      const length = (table.bytes * area) / side;
      const [left, top, wide, high] = width >= height ? [x, y + along, side, length] : [x + along, y, length, side];
      const name = nameOf(table), fits = Math.floor((wide - 12) / 7.6);
      svg.append(s("a", { href: route("table", name), "aria-label": `${name}, ${size(table.bytes)}` }, s("title", {}, `${name}, ${size(table.bytes)}`),
        s("rect", { class: "tile", x: left, y: top, width: wide, height: high }),
        fits > 3 && high > 20 && s("text", { x: left + 6, y: top + 17 }, name.length > fits ? `${name.slice(0, fits - 1)}…` : name),
        fits > 6 && high > 38 && s("text", { class: "soft", x: left + 6, y: top + 34 }, size(table.bytes))));
      along += length;
    }
    if (width >= height) { x += side; width -= side; } else { y += side; height -= side; }
    rest -= sum; at += row.length;
  }
  return tables.length ? h("div", { class: "drawing treemap" }, svg) : h("p", { class: "soft" }, "nothing has a size");
}

// What db.drift found, in words; and whether an object's name is of a table: its own, its columns', or what stands on it.
const said = (each) => `${each.kind} ${each.name} ${each.state === "differs" ? "" : "is "}${each.state}`;
const ofTable = (name, table) => {
  const own = [table.table, `${table.schema}.${table.table}`];
  return own.some((each) => name === each || String(name).startsWith(`${each}.`) || String(name).endsWith(` on ${each}`));
};

// Views
function tableView(name, steps) {
  const table = here.tables.get(name) || there?.tables.get(name), other = there?.tables.get(name);
  if (!table) return [h("h1", {}, name), h("p", {}, `There is no table or view ${name} on this page.`)];
  const own = here.tables.get(name) || {}, most = Math.max(...here.schema.tables.map((each) => each.bytes || 0), 1);
  const marks = differences(name), masks = new Map((here.parts.masks || []).map((mask) => [mask.column, mask]));
  const about = [...(here.parts.drift || []).filter((each) => ofTable(each.name, table)).map((each) => ["drift", said(each)]),
    ...(here.parts.advice || []).filter((each) => ofTable(each.object, table)).map((each) => ["advice", `${each.object}: ${each.detail}`])];
  const [near, left] = neighbours(name, steps);
  const choose = h("fieldset", {}, h("legend", {}, "Steps"), [1, 2, 3].map((each) => h("label", {},
    h("input", { type: "radio", name: "steps", value: each, checked: each === steps ? "" : null, onchange: () => { location.hash = route("table", name, String(each)); } }), ` ${each}`)));
  const keyRow = (key) => [code(key.constraint), key.columns.join(", "), tableLink(key.parent), key.optional ? "optional" : "always"];
  const files = new Map((here.parts.sql_files || []).map((each) => [each.file, each]));
  return [
    h("h1", {}, name),
    h("p", {}, [table.kind, table.owner && `owner ${table.owner}`, own.rows !== undefined && own.rows !== null && `about ${plural(own.rows, "row")}`, own.bytes && size(own.bytes)].filter(Boolean).map((text) => h("span", { class: "chip" }, text)), own.bytes ? bar(own.bytes, most) : null),
    table.comment && h("p", {}, table.comment),
    marks.length ? h("p", { class: "note" }, `differs from ${there.environment}: ${marks.join("; ")}`) : null,
    about.map(([kind, text]) => h("p", { class: "note" }, `${kind}: ${text}`)),
    here.tables.has(name) && section("Neighbours", h("div", { class: "tools" }, choose, left ? h("span", { class: "soft" }, `the nearest ${DRAWN}; ${left} more are not drawn`) : null),
      drawing(`Neighbours of ${name}`, [...near].map((each) => tableNode(each, name)), edgesAmong(near))),
    compared("Columns", "columns", own.columns, other?.columns, ["column", "type", "NULL", "default", "key", "written by", "mask", "comment"], (column) => [
      code(column.column), column.type, column.nullable ? "NULL" : "", code(column.default), [column.primary_key && "primary", column.foreign_key && "foreign"].filter(Boolean).join(", "),
      [...column.written_by.map((writer) => (writer === "PostgreSQL" ? writer : `trigger ${writer}`)), ...(column.made_by?.includes("always") || column.made_by === "generated" ? [] : ["application"])].join(", "),
      masks.get(`${table.schema === "public" ? "" : `${table.schema}.`}${table.table}.${column.column}`)?.mask || "", column.comment]),
    compared("Foreign keys to other tables", "keys", here.from.get(name), there?.from.get(name), ["constraint", "columns", "to", "a row there"], keyRow),
    section("Foreign keys from other tables", grid("Foreign keys from other tables", ["table", "columns", "constraint"], (here.to.get(name) || []).map((key) => [tableLink(key.child), key.columns.join(", "), code(key.constraint)]))),
    compared("Constraints", "constraints", own.constraints, other?.constraints, ["constraint", "definition", "valid"], (each) => [code(each.constraint), code(each.definition), each.valid ? "" : h("strong", { class: "bad" }, "not valid")]),
    compared("Indexes", "indexes", own.indexes, other?.indexes, ["index", "definition", "#size", "#scans", "valid"], (each) => [code(each.index), code(each.definition), size(each.bytes), number(each.scans), each.valid ? "" : h("strong", { class: "bad" }, "not valid")]),
    compared("Triggers in firing order", "triggers", own.triggers, other?.triggers, ["trigger", "definition", "what it does", "file", "#version", "last proof"], (each) => {
      const file = files.get(each.file);
      return [code(each.trigger), [code(each.definition), sourceOf(each.function)], each.what || "", each.file || "", file ? `${file.installed ?? ""}${file.state === "INSTALLED" ? "" : ` ${file.state}`}` : "", moment(each.proved_at)];
    }),
    compared("Policies", "policies", own.policies, other?.policies, ["policy", "command", "roles", "USING", "WITH CHECK", "row security"], (each) => [code(each.policy), each.command, each.roles.join(", "), code(each.using), code(each.with_check), each.enabled ? (each.forced ? "forced" : "enabled, not for the owner") : h("strong", { class: "bad" }, "off")]),
    table.definition ? section("Definition", h("pre", { tabindex: "0" }, table.definition)) : null,
  ];
}
function sourceOf(signature) {
  const made = here.schema.functions.find((each) => each.signature === signature);
  return made?.definition ? folded(signature, made.definition) : null;
}

function functionView(signature) {
  const mine = here.schema.functions.find((each) => each.signature === signature), theirs = there?.schema.functions.find((each) => each.signature === signature);
  const used = here.schema.tables.filter((table) => table.triggers.some((trigger) => trigger.function === signature)).map(nameOf);
  const text = (each) => h("pre", { tabindex: "0" }, each?.definition || "not there");
  return [h("h1", {}, signature), mine?.comment && h("p", {}, mine.comment), used.length ? section("Tables with a trigger that calls it", h("ul", { class: "names" }, used.map((name) => h("li", {}, tableLink(name))))) : null,
    section(there ? `Definition in ${here.environment}` : "Definition", text(mine)),
    there && section(`Definition in ${there.environment}`, mine?.definition === theirs?.definition ? h("p", {}, "the same") : text(theirs))];
}

function groupsOf() {
  const names = [...here.tables.keys()], prefix = (name) => name.split("_")[0], counts = new Map();
  for (const name of names) counts.set(prefix(name), (counts.get(prefix(name)) || 0) + 1);
  const kept = new Set([...counts].filter(([, count]) => count > 2).sort((one, two) => two[1] - one[1]).slice(0, DRAWN - 1).map(([name]) => name));
  const groups = new Map();
  for (const name of names) {
    const group = kept.has(prefix(name)) ? prefix(name) : "all others";
    groups.set(group, [...(groups.get(group) || []), name]);
  }
  return groups;
}
function mapView(chosen) {
  const every = [...here.tables.keys()];
  if (!every.length) return [h("h1", {}, "Map"), h("p", { class: "soft" }, "no tables are known")];
  const groups = every.length > MAPPED ? groupsOf() : new Map();
  if (chosen === undefined && groups.size) {
    const groupOf = new Map([...groups].flatMap(([group, names]) => names.map((name) => [name, group]))), counts = new Map();
    for (const key of here.schema.foreign_keys) {
      const [child, parent] = [groupOf.get(key.child), groupOf.get(key.parent)];
      if (child && parent && child !== parent) counts.set(JSON.stringify([child, parent]), (counts.get(JSON.stringify([child, parent])) || 0) + 1);
    }
    const edges = [...counts].map(([pair, count]) => { const [child, parent] = JSON.parse(pair); return { child, parent, label: `${plural(count, "foreign key")} from ${child} to ${parent}` }; });
    const nodes = [...groups].map(([group, names]) => ({ name: group, title: group, lines: [plural(names.length, "table")], href: route("map", group), label: `group ${group}, ${plural(names.length, "table")}` }));
    return [h("h1", {}, "Map"), h("p", {}, `${plural(every.length, "table")} in groups by the first word of their names; a group opens its tables.`), drawing("Groups of tables", nodes, edges)];
  }
  const names = (chosen === undefined ? every : groups.get(chosen) || []).sort(), drawn = names.slice(0, MAPPED);
  return [h("h1", {}, chosen === undefined ? "Map" : `Map of ${chosen}`), chosen !== undefined && h("p", {}, h("a", { href: "#/map" }, "All groups")),
    names.length > drawn.length ? h("p", { class: "soft" }, `the first ${MAPPED} of ${plural(names.length, "table")} are drawn; all are listed`) : null,
    drawing("Tables and their foreign keys", drawn.map((name) => tableNode(name)), edgesAmong(new Set(drawn))),
    section("Tables", h("ul", { class: "names" }, names.map((name) => h("li", {}, tableLink(name)))))];
}

function tablesView() {
  const tables = [...here.schema.tables, ...(there ? there.schema.tables.filter((table) => !here.tables.has(nameOf(table))) : [])];
  const most = Math.max(...here.schema.tables.map((table) => table.bytes || 0), 1), marks = tables.map((table) => differences(nameOf(table)));
  return [h("h1", {}, "Tables and views"), grid("Tables and views", ["name", "kind", "#about rows", "#size", "#columns", "comment", ...(there ? [`beside ${there.environment}`] : [])],
    tables.map((table, at) => [tableLink(nameOf(table)), table.kind, number(table.rows), [size(table.bytes), table.bytes ? bar(table.bytes, most) : ""], number(table.columns.length), table.comment,
      ...(there ? [marks[at].length ? marks[at].slice(0, 4).join("; ") + (marks[at].length > 4 ? `; ${marks[at].length - 4} more` : "") : "the same"] : [])]), marks.map((mark) => mark.length > 0))];
}

const STATUS = { pass: "good", fail: "bad", unknown: "warn" };
function checks(title, found) {
  const order = ["fail", "unknown", "pass"], sorted = [...found].sort((one, two) => order.indexOf(one.status) - order.indexOf(two.status));
  const bad = sorted.filter((check) => check.status !== "pass").length;
  return section(title, h("p", { class: bad ? "bad" : "good" }, bad ? `${bad} of ${plural(found.length, "check")} did not pass` : `all ${plural(found.length, "check")} pass`),
    grid(title, ["status", "check", "what was found"], sorted.map((check) => [h("span", { class: STATUS[check.status] }, check.status), check.name, check.detail])));
}
function databaseView() {
  const parts = here.parts, about = here.schema.about, stamp = about.stamp;
  const facts = { environment: here.environment, "stamped": stamp ? `${stamp.environment}, ${stamp.identity}` : "no", server: about.version && `PostgreSQL ${about.version}`, address: about.host && `${about.host}:${about.port}`,
    size: size(about.bytes), owner: about.owner, "looked at as": about.user, encoding: about.encoding, collation: about.collation, "running since": moment(about.running_since), "page of": moment(here.written_at) };
  const sections = {
    verify: () => checks("db.verify", parts.verify), doctor: () => checks("db.doctor", parts.doctor),
    drift: () => section("Drift", parts.drift.length ? h("ul", {}, parts.drift.map((each) => h("li", {}, said(each)))) : h("p", { class: "good" }, "the database is what the models and SQL files say")),
    advice: () => section("Advice", grid("Advice", ["level", "what", "object", "remedy"], parts.advice.map((each) => [each.level, `${each.lint}: ${each.detail}`, each.object || "", code(each.remedy)]))),
    migrations: () => section("Migrations", h("ol", { class: "line" }, parts.migrations.map((each) => h("li", {}, h("time", {}, moment(each.at) || "no date"), code(each.revision), ` ${each.message} `, h("span", { class: each.state === "applied" ? "good" : "warn" }, each.state))))),
    sql_files: () => section("SQL object files", grid("SQL object files", ["file", "object", "state", "#installed", "#current", "note"], parts.sql_files.map((each) => [each.file, each.object, h("span", { class: each.state === "INSTALLED" ? "good" : "warn" }, each.state), number(each.installed), number(each.current), each.note]), parts.sql_files.map((each) => each.state !== "INSTALLED" && each.state !== "NOT APPLICABLE"))),
    backups: () => section("Backups", grid("Backups", ["backup", "taken", "#size", "verified"], parts.backups.map((each) => [each.name, moment(each.taken_at || each.taken), size(each.bytes), each.verified || "not yet"]))),
    journal: () => section("Journal", parts.journal.length ? h("ol", { class: "line" }, parts.journal.map((each) => h("li", {}, h("time", {}, moment(each.started_at)), h("strong", {}, each.operation), ` ${each.result || ""} `, h("span", { class: "soft" }, `${each.os_user}@${each.host}, ${Number(each.seconds).toFixed(2)} s`)))) : h("p", { class: "soft" }, "nothing is recorded")),
  };
  const unknown = Object.entries(here.unknown);
  return [h("h1", {}, here.database || "A database that is not known"),
    unknown.length ? section("Unknown", unknown.map(([part, why]) => h("p", { class: "note" }, h("strong", {}, part), `: ${why}`))) : null,
    here.schema.notes.map((note) => h("p", { class: "note" }, note)),
    there ? h("p", { class: "note" }, `compared with ${there.environment} (${there.database || "unknown"}): ${plural(new Set([...here.tables.keys(), ...there.tables.keys()].filter((name) => differences(name).length)).size, "table")} differ; `, h("a", { href: "#/tables" }, "see which")) : null,
    h("dl", { class: "facts" }, Object.entries(facts).filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    section("Sizes", treemap()),
    Object.entries(sections).filter(([part]) => parts[part]).map(([, make]) => make()),
    section("Functions", h("ul", { class: "names" }, here.schema.functions.map((each) => h("li", {}, h("a", { href: route("function", each.signature) }, each.signature))))),
    section("Sequences", grid("Sequences", ["sequence", "type", "#last value", "owned by"], (here.schema.sequences || []).map((each) => [each.sequence, each.type, number(each.last_value), each.owned_by]))),
    section("Extensions", grid("Extensions", ["extension", "version", "comment"], (here.schema.extensions || []).map((each) => [each.extension, each.version, each.comment])))];
}

// Search
function entriesOf() {
  const found = [], add = (kind, name, href, where = "") => found.push({ kind, name, href, where, key: name.toLowerCase() });
  for (const [name, table] of here.tables) add(table.kind.includes("view") ? "view" : "table", name, route("table", name));
  for (const each of here.schema.functions) add("function", each.signature, route("function", each.signature));
  for (const [name, table] of here.tables) {
    for (const trigger of table.triggers) add("trigger", trigger.trigger, route("table", name), name);
    for (const policy of table.policies) add("policy", policy.policy, route("table", name), name);
  }
  for (const [name, table] of here.tables) for (const column of table.columns) add("column", column.column, route("table", name), name);
  return found;
}
function search() {
  const words = $("search").value.toLowerCase().split(/[\s.]+/).filter(Boolean), list = $("found");
  list.hidden = !words.length;
  if (!words.length) return;
  const hits = [[], [], []];
  for (const entry of entries) {
    if (!words.every((word) => entry.key.includes(word) || entry.where.toLowerCase().includes(word))) continue;
    hits[entry.key === words[0] ? 0 : entry.key.startsWith(words[0]) ? 1 : 2].push(entry);
  }
  const all = hits.flat(), shown = all.slice(0, SHOWN);
  list.replaceChildren(h("p", { class: "soft", role: "status" }, all.length > SHOWN ? `${number(all.length)} found, the first ${SHOWN}` : `${number(all.length)} found`),
    ...shown.map((entry) => h("a", { href: entry.href, onclick: () => close() }, h("span", { class: "kind" }, entry.kind), h("span", { class: "what" }, entry.name, entry.where && h("span", { class: "soft" }, ` in ${entry.where}`)))));
}
function close() { $("found").hidden = true; $("search").value = ""; }
function step(event) {
  const links = [...$("found").querySelectorAll("a")], at = links.indexOf(document.activeElement);
  if (event.key === "Escape") { close(); $("search").focus(); return; }
  if (event.key === "Enter" && document.activeElement === $("search") && links.length) { links[0].click(); event.preventDefault(); return; }
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  event.preventDefault();
  const next = at + (event.key === "ArrowDown" ? 1 : -1);
  (next < 0 ? $("search") : links[Math.min(next, links.length - 1)])?.focus();
}

function show(moved) {
  const [view, name, more] = location.hash.slice(2).split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  const steps = Math.min(Math.max(Number(more) || 1, 1), 3);
  const views = { table: () => tableView(name, steps), function: () => functionView(name), map: () => mapView(name), tables: tablesView };
  $("content").replaceChildren(...(views[view] || databaseView)().flat(3).filter(Boolean));
  const current = { "": "#/", table: "#/tables", function: "#/", map: "#/map", tables: "#/tables" }[view || ""] || "#/";
  for (const link of document.querySelectorAll("nav a")) link.getAttribute("href") === current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  document.title = `${name || { map: "Map", tables: "Tables" }[view] || here.database || "unknown"} (${here.environment})`;
  if (moved) { scrollTo(0, 0); (view === "table" && document.querySelector("input[name=steps]:checked") && moved.oldURL?.includes(`#/table/${encodeURIComponent(name)}`) ? document.querySelector("input[name=steps]:checked") : $("content")).focus({ preventScroll: true }); }
}

(async () => {
  const [mine, theirs] = await unpack($("data").textContent.trim());
  here = database(mine);
  there = theirs && database(theirs);
  entries = entriesOf();
  $("search").addEventListener("input", search);
  document.querySelector(".search").addEventListener("keydown", step);
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("content").focus(); });
  document.addEventListener("keydown", (event) => { if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); } });
  document.addEventListener("click", (event) => { if (!event.target.closest(".search")) $("found").hidden = true; });
  addEventListener("hashchange", show);
  show();
  document.documentElement.dataset.ready = "true";
})().catch((error) => { $("content").replaceChildren(h("p", { class: "note" }, `This page cannot be shown: ${error.message}. A browser of 2023 or newer is needed.`)); });
