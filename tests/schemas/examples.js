// SPDX-License-Identifier: BSD-3-Clause
// Messages by type, without their `type`; the first good one of each has every required field.
'use strict';

const at = '2026-11-22T18:17:00.000Z';
const write = { collection: 'todos', recordId: 'todo-1', data: { text: 'milk', done: false }, timestamp: at };
const { data, ...remove } = write;
const event = { ...write, metadata: { version: 3, userId: 'ana', seq: 17 } };
const gone = { ...remove, metadata: { version: 4, userId: null, seq: 18 } };
const record = { id: 'todo-1', data: {}, version: 1, updatedAt: at };
const tombstone = { id: 'todo-2', version: 2, updatedAt: at };
const page = {
    collection: 'todos',
    data: { records: [record] },
    timestamp: at,
    metadata: { seq: 17, epoch: 'f00d', full: true, more: false, total: 1 },
};
const incremental = { ...page, data: { records: [], deleted: [tombstone] }, metadata: { ...page.metadata, full: false } };
const error = { error: 'recordId: missing', code: 'INVALID_MESSAGE', metadata: {} };
const ack = { collection: 'todos', recordId: 'todo-1', metadata: { mutationId: 'm-1', version: 3, seq: 17 } };
const subscribed = { collection: 'todos', metadata: { recordCount: 2, seq: 17, epoch: 'f00d' } };

const withMetadata = (message, metadata) => ({ ...message, metadata: { ...message.metadata, ...metadata } });
const withoutMetadata = (message, name) => {
    const { [name]: dropped, ...metadata } = message.metadata;
    return { ...message, metadata };
};

const badNames = [
    { collection: '' }, { collection: '..' }, { collection: 'a/b' }, { collection: 'c'.repeat(65) }, { collection: 7 },
];
const badIds = [
    { recordId: '' }, { recordId: 'a/b' }, { recordId: 'a+' }, { recordId: '#' }, { recordId: 'a\u0000' },
    { recordId: 'a\u0085' }, { recordId: 'r'.repeat(129) }, { recordId: 7 },
];
const badTimes = [
    '', 'yesterday', '2026-11-22', '18:17:00Z', 1795000000000, '2026-11-22T18:17:00+1', '20261122T181700Z',
    '2026-11-22T18:17:00,5Z',
].map((timestamp) => ({ timestamp }));
const badVersions = [-1, 1.5, '3', true].flatMap((v) => [{ baseVersion: v }, { ifVersion: v }]);
const badWrite = (message) => [
    ...[...badNames, ...badIds, ...badTimes].map((change) => ({ ...message, ...change })),
    ...badVersions.map((metadata) => withMetadata(message, metadata)),
    ...['', 'm'.repeat(129), 1].map((mutationId) => withMetadata(message, { mutationId })),
    { ...message, metadata: [] },
];
const badData = (message) => [[], 'text', 1, true, null].map((d) => ({ ...message, data: d }));
const badSince = (message) => [-1, 0.5, '17'].map((since) => withMetadata(message, { since }));
const badCollection = (message) => badNames.map((change) => ({ ...message, ...change }));

const badEvent = (message) => [
    ...[...badNames, ...badIds].map((change) => ({ ...message, ...change })),
    { ...message, timestamp: '2026-11-22T18:17:00Z' },
    { ...message, timestamp: '2026-11-22T18:17:00.000+00:00' },
    { ...message, timestamp: '2026-13-22T18:17:00.000Z' },
    ...['version', 'userId', 'seq'].map((name) => withoutMetadata(message, name)),
    withMetadata(message, { version: 0 }),
    withMetadata(message, { conflict: false }),
    withMetadata(message, { userId: 7 }),
    withMetadata(message, { mutationId: '' }),
];

const client = {
    auth: { good: [{ token: 'a.b.c' }], bad: [{ token: 1 }, { token: null }] },
    subscribe: {
        good: [
            { collection: 'todos' },
            { collection: 'todos', metadata: { since: 17, epoch: 'f00d', sync: false, updates: 'full' } },
            { collection: 'todos', metadata: null },
            { collection: 'todos', metadata: { since: null, epoch: null, sync: null, updates: null } },
        ],
        bad: [
            ...badCollection({}),
            ...badSince({ collection: 'todos' }),
            { collection: 'todos', metadata: { sync: 'false' } },
            { collection: 'todos', metadata: { updates: 'all' } },
            { collection: 'todos', metadata: { epoch: 1 } },
        ],
    },
    unsubscribe: { good: [{ collection: 'a.b_C-9' }], bad: badCollection({}) },
    insert: {
        good: [
            write,
            { ...write, timestamp: null },
            { ...write, timestamp: '2026-11-22T18:17:00.123456' },
            { ...write, timestamp: '2026-11-22t18:17:00+01:00' },
            { ...write, timestamp: '2026-11-22 18:17Z' },
            { ...write, timestamp: '2026-11-22T18:17:00+0100' },
            { ...write, timestamp: '2026-11-22 18:17:00,123' },
            { ...write, timestamp: '20261122T181700.5' },
            { ...write, recordId: 'Größe 1:2' },
            withMetadata(write, { mutationId: 'm-1', baseVersion: 3, ifVersion: 0 }),
        ],
        bad: [...badWrite(write), ...badData(write)],
    },
    update: { good: [write, { ...write, data: { done: null } }], bad: [...badWrite(write), ...badData(write)] },
    delete: { good: [remove, withMetadata(remove, { baseVersion: 3 })], bad: badWrite(remove) },
    sync: {
        good: [{ collection: 'todos' }, { collection: 'todos', metadata: { since: 0, epoch: 'f00d', limit: 100 } }],
        bad: [...badCollection({}), ...badSince({ collection: 'todos' }), { collection: 'todos', metadata: { limit: -1 } }],
    },
    ping: { good: [{}], bad: [{ metadata: 1 }] },
};

const server = {
    insert: {
        good: [event, withMetadata(event, { mutationId: 'm-1' }), withMetadata(event, { userId: null })],
        bad: [...badEvent(event), ...badData(event)],
    },
    update: {
        good: [event, { ...event, data: { done: null } }, withMetadata(event, { conflict: true })],
        bad: [...badEvent(event), ...badData(event)],
    },
    delete: {
        good: [gone, withMetadata(gone, { conflict: true })],
        bad: [...badEvent(gone), { ...gone, data: {} }],
    },
    sync: {
        good: [
            page,
            incremental,
            { ...page, data: { records: [] }, metadata: { ...page.metadata, seq: 0, total: 0 } },
            { ...page, data: { records: [record], deleted: [tombstone] } },
        ],
        bad: [
            ...badCollection(page),
            { ...incremental, data: { records: [] } },
            { ...page, data: [record] },
            { ...page, data: { records: [{ ...record, extra: 1 }] } },
            { ...page, data: { records: [], deleted: [record] } },
            { ...page, data: { records: Array(501).fill(record) } },
            { ...page, data: { ...page.data, extra: 1 } },
            ...['seq', 'epoch', 'full', 'more', 'total'].map((name) => withoutMetadata(page, name)),
            withMetadata(page, { more: 'no' }),
        ],
    },
    error: {
        good: [
            error,
            withMetadata(error, { collection: 'todos', recordId: 'todo-1', mutationId: 'm-1' }),
            { ...error, code: 'CONFLICT', metadata: { version: 0 } },
        ],
        bad: [
            { ...error, code: 'OOPS' },
            { ...error, error: '' },
            { ...error, error: { text: 'no' } },
            { ...error, code: 'CONFLICT' },
            withMetadata(error, { version: -1 }),
        ],
    },
    ack: {
        good: [ack, withMetadata(ack, { conflict: true }), withoutMetadata(ack, 'mutationId')],
        bad: [
            ...['version', 'seq'].map((name) => withoutMetadata(ack, name)),
            ...badCollection(ack),
            ...badIds.map((change) => ({ ...ack, ...change })),
            { ...ack, data: {} },
        ],
    },
    authenticated: { good: [{}], bad: [{ data: {} }] },
    subscribed: {
        good: [subscribed],
        bad: [
            ...badCollection(subscribed),
            ...['recordCount', 'seq', 'epoch'].map((name) => withoutMetadata(subscribed, name)),
            withMetadata(subscribed, { recordCount: -1 }),
            { ...subscribed, data: {} },
        ],
    },
    unsubscribed: { good: [{ collection: 'todos' }], bad: [...badCollection({}), { collection: 'todos', data: {} }] },
    pong: { good: [{}], bad: [{ data: {} }, { collection: 'todos' }] },
};

module.exports = {
    client,
    server,
    record: {
        good: [record, { ...record, version: 9007199254740991, data: { '': null } }],
        bad: [
            tombstone,
            { ...record, extra: 1 },
            { ...record, version: 0 },
            { ...record, data: [] },
            { ...record, id: '' },
            { ...record, updatedAt: '2026-11-22' },
        ],
    },
};
