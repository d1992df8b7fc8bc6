/** What a stage costs while nobody asks: the templates as they are decide, and `ruminate quote --stage` and docs/COST.md say the same. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { idleMonth, PRIVATE_ENDPOINTS, STAGES } from '../../engine/job/idle.ts';
import { STAGE_NAMES } from '../config.ts';
import { partsOf } from '../cost.ts';
import { ROOT } from '../lib/bundles.ts';
import { OTHER, stageNamed } from './synthesised.ts';

/** Whole dollars: `| `dev` | 11 | …` */
const said = new Map([...readFileSync(path.join(ROOT, 'docs', 'COST.md'), 'utf8').matchAll(/^\| `(\w+)` \| ([\d.]+) \|/gm)].map(([, name = '', usd]) => [name, Number(usd)]));
const zonesOf = (name: string): number => stageNamed(name).all('AWS::EC2::Subnet').length;

describe('an idle month', () => {
  test('has what the templates have', () => {
    expect(Object.keys(STAGES)).toEqual(STAGE_NAMES);
    for (const name of STAGE_NAMES) expect([name, STAGES[name]]).toEqual([name, { zones: zonesOf(name), parts: partsOf(stageNamed(name).resources) }]);
  });

  test('is what docs/COST.md says', () => {
    for (const name of STAGE_NAMES) expect([name, Math.round(idleMonth(STAGES[name]?.parts ?? {}).usdPerMonth)]).toEqual([name, said.get(name)]);
  });

  test('of every stage is a few dollars: nothing that is paid for by the hour is there', () => {
    for (const name of STAGE_NAMES) {
      const stage = stageNamed(name);
      expect(idleMonth(partsOf(stage.resources)).usdPerMonth).toBeLessThan(15);
      expect(stage.config.network.access).toBe('public');
      for (const type of ['AWS::EC2::NatGateway', 'AWS::EC2::EIP', 'AWS::EC2::Instance', 'AWS::ElasticLoadBalancingV2::LoadBalancer']) expect(stage.all(type)).toEqual([]);
      expect(stage.all('AWS::EC2::VPCEndpoint').filter(({ Properties }) => Properties.VpcEndpointType !== 'Gateway')).toEqual([]);
    }
  });

  test('with private access is dearer by its endpoints, as many in each zone as are said', () => {
    const { config, resources } = stageNamed(OTHER);
    expect(config.network.access).toBe('private');
    expect(partsOf(resources).endpoints).toBe(PRIVATE_ENDPOINTS * config.network.zones);
  });
});
