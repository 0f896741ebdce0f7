// SPDX-License-Identifier: BSD-3-Clause
// The schemas are valid, take what they should and nothing else, and agree with the operations table and with the C
// reader of the configuration (tests/unit/test_config.c reads the same files under config/).
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');

const Ajv = require('ajv/dist/2020').default;
const addFormats = require('ajv-formats').default;

const root = path.join(__dirname, '..', '..');
const read = (...names) => JSON.parse(fs.readFileSync(path.join(...names), 'utf8'));
const names = fs.readdirSync(path.join(root, 'schemas')).filter((name) => name.endsWith('.schema.json'));
const schemas = Object.fromEntries(names.map((name) => [name, read(root, 'schemas', name)]));
const examples = require('./examples.js');

const ajv = new Ajv({ strict: true, strictTypes: false, strictRequired: false, allErrors: true });
addFormats(ajv);
Object.values(schemas).forEach((schema) => ajv.addSchema(schema));
const validators = Object.fromEntries(names.map((name) => [name, ajv.getSchema(name)]));

function assertValid(name, value) {
    const validate = validators[name];
    assert.ok(validate(value), `${JSON.stringify(value)}: ${ajv.errorsText(validate.errors)}`);
}

function assertInvalid(name, value) {
    assert.ok(!validators[name](value), `${name} takes ${JSON.stringify(value)}`);
}

test('every schema is a valid one of draft 2020-12 and is called what its file is called', () => {
    assert.deepEqual(names.sort(), [
        'client-messages.schema.json', 'config.schema.json', 'record.schema.json', 'server-messages.schema.json',
    ]);
    for (const name of names) {
        assert.equal(schemas[name].$schema, 'https://json-schema.org/draft/2020-12/schema');
        assert.equal(schemas[name].$id, name);
        assert.ok(ajv.validateSchema(schemas[name]), ajv.errorsText(ajv.errors));
    }
});

const messageSchemas = { client: 'client-messages.schema.json', server: 'server-messages.schema.json' };

for (const [side, name] of Object.entries(messageSchemas)) {
    const types = schemas[name].properties.type.enum;

    test(`${side}: good and bad examples of each type`, () => {
        for (const type of types) {
            const { good, bad } = examples[side][type];
            assert.ok(good.length > 0 && bad.length > 0, type);
            good.forEach((message) => assertValid(name, { type, ...message }));
            bad.forEach((message) => assertInvalid(name, { type, ...message }));
        }
        assert.deepEqual(Object.keys(examples[side]).sort(), [...types].sort());
    });

    test(`${side}: only messages of a known type`, () => {
        [{}, { type: 'insrt' }, { type: null }, { type: ['ping'] }, [], null, 'ping'].forEach((m) => assertInvalid(name, m));
    });

    test(`${side}: every required field is required`, () => {
        for (const type of types) {
            const definition = schemas[name].$defs[type];
            assert.equal(definition.properties.type.const, type);
            const message = { type, ...examples[side][type].good[0] };
            for (const field of definition.required) {
                const { [field]: dropped, ...rest } = message;
                assert.notEqual(dropped, undefined, `${type}: the first example has no ${field}`);
                assertInvalid(name, rest);
            }
        }
    });

    test(`${side}: each type has its schema and no other`, () => {
        const conditions = schemas[name].allOf.map((c) => [c.if.properties.type.const, c.then.$ref]);
        assert.deepEqual(conditions, types.map((type) => [type, `#/$defs/${type}`]));
    });
}

test('server: nothing that is not described', () => {
    for (const [type, { good }] of Object.entries(examples.server)) {
        assertInvalid(messageSchemas.server, { type, ...good[0], extra: 1 });
        if (good[0].metadata) {
            assertInvalid(messageSchemas.server, { type, ...good[0], metadata: { ...good[0].metadata, extra: 1 } });
        }
    }
});

test('client: unknown fields are ignored', () => {
    for (const [type, { good }] of Object.entries(examples.client)) {
        const metadata = { ...good[0].metadata, extra: 1 };
        assertValid(messageSchemas.client, { type, ...good[0], extra: 1, metadata });
    }
});

test('client: the schema says what operations.json says', () => {
    const { operations } = read(root, 'schemas', 'operations.json');
    const schema = schemas[messageSchemas.client];
    assert.deepEqual(operations.map((o) => o.type), schema.properties.type.enum);
    for (const { type, requires, optional } of operations) {
        const definition = schema.$defs[type];
        const { type: ignored, metadata, ...fields } = definition.properties;
        const carried = [...Object.keys(fields), ...Object.keys(metadata?.properties ?? {}).map((f) => `metadata.${f}`)];
        assert.deepEqual([...definition.required].sort(), ['type', ...requires].sort(), type);
        assert.deepEqual(carried.sort(), [...requires, ...optional].sort(), type);
    }
});

test('server: the codes are those of lib/error.c', () => {
    const source = fs.readFileSync(path.join(root, 'lib', 'error.c'), 'utf8');
    const codes = [...source.matchAll(/return "([A-Z_]+)";/g)].map((m) => m[1]).filter((code) => code !== 'OK');
    const known = schemas[messageSchemas.server].$defs.error.properties.code.enum;
    assert.deepEqual([...new Set(codes)].sort(), [...known].sort());
});

test('record: good and bad examples', () => {
    examples.record.good.forEach((record) => assertValid('record.schema.json', record));
    examples.record.bad.forEach((record) => assertInvalid('record.schema.json', record));
});

const configFiles = (kind) => fs.readdirSync(path.join(__dirname, 'config', kind))
    .filter((name) => name.endsWith('.json'))
    .map((name) => path.join(__dirname, 'config', kind, name));

test('config: the files that the reader takes', () => {
    const files = [...configFiles('good'), path.join(root, 'conf', 'mqsync.json')];
    assert.ok(files.length > 1);
    files.forEach((file) => assertValid('config.schema.json', read(file)));
});

test('config: the files that the reader refuses', () => {
    const files = configFiles('bad');
    assert.ok(files.length > 0);
    for (const file of files) {
        assert.ok(!validators['config.schema.json'](read(file)), `${path.basename(file)}: the schema takes it`);
    }
});

test('config: the defaults of the schema are those of good/defaults.json, which the reader is held to', () => {
    const resolve = (schema) => {
        const { $ref, ...rest } = schema;
        return $ref ? { ...schemas['config.schema.json'].$defs[$ref.slice('#/$defs/'.length)], ...rest } : schema;
    };
    const filled = (schema, keyAbove) => {
        const value = {};
        for (const [key, property] of Object.entries(resolve(schema).properties)) {
            const { default: standard, properties } = resolve(property);
            if (standard !== undefined) {
                value[key] = standard;
            } else if (properties && !(keyAbove === 'auth' && key === 'jwt')) {
                value[key] = filled(property, key);
            }
        }
        return value;
    };
    const defaults = filled(schemas['config.schema.json']);
    assert.deepEqual(defaults.collections, { '*': {} });
    defaults.collections['*'] = filled(schemas['config.schema.json'].$defs.collection);
    assert.deepEqual(defaults, read(__dirname, 'config', 'good', 'defaults.json'));
});
