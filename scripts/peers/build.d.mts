export declare const PEERS: Readonly<Record<'versitygw' | 'minio' | 'elasticmq', { readonly module?: string; readonly artifact?: string; readonly minutes: number }>>;
export declare function peerPath(name: keyof typeof PEERS): string;
export declare function ensurePeer(name: keyof typeof PEERS): { readonly binary: string } | { readonly missing: string };
