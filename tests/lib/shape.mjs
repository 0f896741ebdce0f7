// SPDX-License-Identifier: BSD-3-Clause
// What a message of the server may look like: the contract's tables as code, and schemas/ when it is there. Every
// message that any
// client of any test receives passes through here.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { schemas } from './env.mjs';

const require = createRequire(import.meta.url);

export const CODES = [
    'AUTH_FAILED',
    'UNAUTHORIZED',
    'INVALID_MESSAGE',
    'COLLECTION_NOT_FOUND',
    'RECORD_NOT_FOUND',
    'RATE_LIMIT_EXCEEDED',
    'SERVER_ERROR',
    'CONFLICT',
];
export const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
export const EPOCH = /^[0-9a-f]{32}$/;
const PAGE_BYTES = 256 * 1024;

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isPositive = (value) => Number.isSafeInteger(value) && value > 0;
const isString = (value) => typeof value === 'string';
const isName = (value) => isString(value) && /^[A-Za-z0-9_.-]{1,64}$/.test(value);
const isTime = (value) => isString(value) && TIME.test(value);
const isId = (value) => isString(value) && Buffer.byteLength(value) >= 1 && Buffer.byteLength(value) <= 128;
const isEpoch = (value) => isString(value) && value.length > 0;

function expect(ok, what) {
    assert.ok(ok, what);
}

function onlyFields(object, allowed, where) {
    for (const key of Object.keys(object)) {
        expect(allowed.includes(key), `${where} carries "${key}"`);
    }
}

function entry(value, withData, where) {
    expect(isObject(value), `${where} is not an object`);
    onlyFields(value, withData ? ['id', 'data', 'version', 'updatedAt'] : ['id', 'version', 'updatedAt'], where);
    expect(isId(value.id), `${where}.id`);
    expect(isPositive(value.version), `${where}.version`);
    expect(isTime(value.updatedAt), `${where}.updatedAt`);
    expect(!withData || isObject(value.data), `${where}.data`);
}

function event(m) {
    onlyFields(m, ['type', 'collection', 'recordId', 'data', 'timestamp', 'metadata'], m.type);
    expect(isName(m.collection), 'collection');
    expect(isId(m.recordId), 'recordId');
    expect(m.type === 'delete' ? m.data === undefined || isObject(m.data) : isObject(m.data), 'data');
    expect(isTime(m.timestamp), 'timestamp');
    expect(isObject(m.metadata), 'metadata');
    expect(isPositive(m.metadata.version), 'metadata.version');
    expect(isPositive(m.metadata.seq), 'metadata.seq');
    expect(m.metadata.userId === null || isString(m.metadata.userId), 'metadata.userId');
    expect(m.metadata.mutationId === undefined || isString(m.metadata.mutationId), 'metadata.mutationId');
    expect(m.metadata.conflict === undefined || m.metadata.conflict === true, 'metadata.conflict');
}

const checks = {
    insert: event,
    update: event,
    delete: event,
    sync(m, length) {
        onlyFields(m, ['type', 'collection', 'data', 'timestamp', 'metadata'], 'sync');
        expect(isName(m.collection), 'collection');
        expect(isTime(m.timestamp), 'timestamp');
        expect(isObject(m.data) && Array.isArray(m.data.records), 'data.records');
        m.data.records.forEach((record, i) => entry(record, true, `data.records[${i}]`));
        expect(m.data.deleted === undefined || Array.isArray(m.data.deleted), 'data.deleted');
        m.data.deleted?.forEach((record, i) => entry(record, false, `data.deleted[${i}]`));
        const { metadata } = m;
        expect(isObject(metadata), 'metadata');
        expect(isCount(metadata.seq), 'metadata.seq');
        expect(isEpoch(metadata.epoch), 'metadata.epoch');
        expect(typeof metadata.full === 'boolean', 'metadata.full');
        expect(typeof metadata.more === 'boolean', 'metadata.more');
        expect(isCount(metadata.total), 'metadata.total');
        expect(metadata.full || m.data.deleted !== undefined, 'an incremental page carries data.deleted');
        const entries = m.data.records.length + (m.data.deleted?.length ?? 0);
        expect(entries <= 500, `${entries} entries in a page`);
        expect(length <= PAGE_BYTES || entries === 1, `a page of ${length} bytes with ${entries} entries`);
    },
    error(m) {
        onlyFields(m, ['type', 'error', 'code', 'metadata', 'collection', 'recordId', 'timestamp'], 'error');
        expect(isString(m.error) && m.error.length > 0, 'error');
        expect(CODES.includes(m.code), `code ${m.code}`);
        expect(m.metadata === undefined || isObject(m.metadata), 'metadata');
        expect(m.metadata?.version === undefined || isCount(m.metadata.version), 'metadata.version');
    },
    ack(m) {
        onlyFields(m, ['type', 'collection', 'recordId', 'metadata', 'timestamp'], 'ack');
        expect(isName(m.collection), 'collection');
        expect(isId(m.recordId), 'recordId');
        expect(isObject(m.metadata), 'metadata');
        expect(m.metadata.mutationId === undefined || isString(m.metadata.mutationId), 'metadata.mutationId');
        expect(isPositive(m.metadata.version), 'metadata.version');
        expect(isPositive(m.metadata.seq), 'metadata.seq');
    },
    subscribed(m) {
        expect(m.data === undefined, 'carries data');
        expect(isName(m.collection), 'collection');
        expect(isCount(m.metadata?.recordCount), 'metadata.recordCount');
        expect(isCount(m.metadata.seq), 'metadata.seq');
        expect(isEpoch(m.metadata.epoch), 'metadata.epoch');
    },
    unsubscribed(m) {
        expect(m.data === undefined, 'carries data');
        expect(isName(m.collection), 'collection');
    },
    authenticated: (m) => expect(m.data === undefined, 'carries data'),
    pong: (m) => expect(m.data === undefined, 'carries data'),
};

function compileSchemas() {
    const file = path.join(schemas, 'server-messages.schema.json');
    if (!fs.existsSync(file)) {
        return undefined;
    }
    const read = (name) => JSON.parse(fs.readFileSync(path.join(schemas, name), 'utf8'));
    const main = read('server-messages.schema.json');
    const Ajv = (main.$schema ?? '').includes('2020-12') ? require('ajv/dist/2020').default : require('ajv').default;
    const ajv = new Ajv({ allErrors: true, strict: false });
    require('ajv-formats').default(ajv);
    for (const name of fs.readdirSync(schemas)) {
        if (name.endsWith('.schema.json') && name !== 'server-messages.schema.json') {
            ajv.addSchema(read(name));
        }
    }
    return ajv.compile(main);
}

const validate = compileSchemas();

/** Throws unless `payload` is a message that the contract lets a server send; returns it parsed. */
export function checkServerMessage(payload) {
    const message = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
    expect(isObject(message), 'not an object');
    const check = Object.hasOwn(checks, message.type) ? checks[message.type] : undefined;
    expect(check, `type ${JSON.stringify(message.type)}`);
    check(message, payload.length);
    if (validate && !validate(message)) {
        assert.fail(`schemas/: ${JSON.stringify(validate.errors)}`);
    }
    return message;
}

/** The same for a retained record. */
export function checkRecord(payload) {
    const record = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
    entry(record, true, 'record');
    return record;
}
