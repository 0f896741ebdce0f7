// SPDX-License-Identifier: BSD-3-Clause
// The collection `todos`, live: what a web client of mqsync needs, in one file and without a library.
const collection = 'todos';
const $ = (id) => document.getElementById(id);
const todos = new Map(); // id -> {data, version}
const rows = new Map(); // id -> <li>
let socket;
let since; // {seq, epoch}: as far as this page has come
let token = sessionStorage.getItem('token') ?? '';
let wait = 500;

function say(state, live = false) {
    $('state').textContent = state;
    $('state').classList.toggle('live', live);
}

function complain(text) {
    $('problem').textContent = text;
    $('problem').hidden = !text;
}

// --- what is shown

function makeRow(id) {
    const row = document.createElement('li');
    const label = document.createElement('label');
    const tick = document.createElement('input');
    const text = document.createElement('span');
    const remove = document.createElement('button');
    tick.type = 'checkbox';
    tick.addEventListener('change', () => write('update', id, { done: tick.checked }));
    remove.type = 'button';
    remove.textContent = 'Delete';
    remove.addEventListener('click', () => write('delete', id));
    label.append(tick, text);
    row.append(label, remove);
    $('todos').append(row);
    rows.set(id, row);
    return row;
}

function show(id) {
    const todo = todos.get(id);
    if (!todo) {
        rows.get(id)?.remove();
        rows.delete(id);
    } else {
        const row = rows.get(id) ?? makeRow(id);
        // an object need not have a text form, and no record may keep the others from being shown
        const text = typeof todo.data.text === 'object' ? id : String(todo.data.text ?? id);
        row.classList.toggle('done', todo.data.done === true);
        row.querySelector('input').checked = todo.data.done === true;
        row.querySelector('span').textContent = text;
        row.querySelector('button').setAttribute('aria-label', `Delete ${text}`);
    }
    $('none').hidden = todos.size > 0 || !since;
}

// --- what comes in

function put(id, data, version) {
    todos.set(id, { data, version });
    show(id);
}

function drop(id) {
    todos.delete(id);
    show(id);
}

function merge(id, delta, version) {
    const data = { ...todos.get(id)?.data };
    for (const [key, value] of Object.entries(delta)) {
        if (value === null) {
            delete data[key];
        } else {
            data[key] = value;
        }
    }
    put(id, data, version);
}

let page; // the ids of a full state that comes in several pages

function takeSync({ data, metadata }) {
    if (metadata.full && !page) {
        page = new Set();
    }
    for (const record of data.records) {
        page?.add(record.id);
        put(record.id, record.data, record.version);
    }
    data.deleted?.forEach(({ id }) => drop(id));
    if (!metadata.more) {
        if (page) {
            [...todos.keys()].filter((id) => !page.has(id)).forEach(drop);
            page = undefined;
        }
        since = { seq: metadata.seq, epoch: metadata.epoch };
    }
}

// A writer is not sent its own change: what it wanted is kept until the answer says how it went.
const wanted = new Map(); // mutationId -> what to do once it is acknowledged
let mutations = 0;

/** crypto.randomUUID() is there for https and localhost only. */
function newId() {
    return crypto.randomUUID?.() ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
}

function write(type, recordId, data) {
    if (socket?.readyState !== WebSocket.OPEN) {
        complain('Not connected: nothing was changed.');
        show(recordId);
        return;
    }
    const mutationId = `web-${newId()}-${++mutations}`;
    const timestamp = new Date().toISOString();
    wanted.set(mutationId, { type, recordId, data });
    socket.send(JSON.stringify({ type, collection, recordId, data, timestamp, metadata: { mutationId } }));
}

function takeAck({ recordId, metadata }) {
    const change = wanted.get(metadata.mutationId);
    wanted.delete(metadata.mutationId);
    if (!change || metadata.conflict) {
        return;
    }
    if (change.type === 'delete') {
        drop(recordId);
    } else {
        merge(recordId, change.data, metadata.version);
    }
    advance(metadata.seq);
    complain('');
}

function advance(seq) {
    if (since && seq === since.seq + 1) {
        since.seq = seq;
    }
}

function takeError({ error, code, metadata }) {
    const change = wanted.get(metadata?.mutationId);
    wanted.delete(metadata?.mutationId);
    if (change) {
        show(change.recordId);
    }
    complain(code === 'UNAUTHORIZED' && !change ? 'This server asks for a token: see below.' : error);
}

function take(message) {
    const { type, recordId, data, metadata } = message;
    switch (type) {
    case 'authenticated':
        subscribe();
        break;
    case 'subscribed':
        say('Live', true);
        wait = 500;
        if (metadata.recordCount === 0 && !since) {
            since = { seq: metadata.seq, epoch: metadata.epoch };
            [...todos.keys()].forEach(drop);
            show('');
        }
        break;
    case 'sync':
        takeSync(message);
        break;
    case 'insert':
    case 'update':
        if (metadata.conflict || type === 'insert') {
            put(recordId, data, metadata.version);
        } else {
            merge(recordId, data, metadata.version);
        }
        advance(metadata.seq);
        break;
    case 'delete':
        drop(recordId);
        advance(metadata.seq);
        break;
    case 'ack':
        takeAck(message);
        break;
    case 'error':
        takeError(message);
        break;
    }
}

// --- the connection

function subscribe() {
    page = undefined;
    const metadata = since && { since: since.seq, epoch: since.epoch };
    socket.send(JSON.stringify({ type: 'subscribe', collection, metadata }));
}

function connect() {
    const here = new WebSocket(new URL('ws', location.href.replace(/^http/, 'ws')));
    socket = here;
    const keepAlive = setInterval(() => here.readyState === WebSocket.OPEN && here.send('{"type":"ping"}'), 25_000);
    here.addEventListener('open', () => {
        if (token) {
            here.send(JSON.stringify({ type: 'auth', token }));
        } else {
            subscribe();
        }
    });
    here.addEventListener('message', ({ data }) => here === socket && take(JSON.parse(data)));
    here.addEventListener('close', ({ code }) => {
        clearInterval(keepAlive);
        if (here !== socket) {
            return;
        }
        wanted.clear();
        rows.forEach((row, id) => show(id));
        if (code === 1008) {
            say('Refused');
            return;
        }
        say('Reconnecting');
        setTimeout(() => here === socket && connect(), wait * (0.5 + Math.random()));
        wait = Math.min(wait * 2, 15_000);
    });
}

$('new').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = $('text').value.trim();
    if (text) {
        write('insert', newId(), { text, done: false });
        $('text').value = '';
    }
});

$('login').addEventListener('submit', (event) => {
    event.preventDefault();
    token = $('token').value.trim();
    sessionStorage.setItem('token', token);
    $('token').value = '';
    complain('');
    const old = socket;
    connect();
    old.close();
});

connect();
