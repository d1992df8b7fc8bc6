// How a panel of a block format (packed.h) is read: the floats of DequantiseRow, by the same operations. Part of kernels.inc.h, once
// per level.
//
// A reader Q: kUnit columns share their scales; Begin loads those of 16 rows, from row `lane` of a panel on; Read gives kStep columns,
// from column k of the unit on. Small whole numbers come out of tables of 16 floats: a lookup ignores all but the low 4 bits of a
// code, so it needs neither a mask nor a conversion.
namespace rum {
namespace {

alignas(64) constexpr float kFourBits[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
alignas(64) constexpr float kFourBitsLess8[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
// 16 h - 32 for the two low bits h of a code, whatever the next two are.
alignas(64) constexpr float kHighBitsLess32[16] = {-32, -16, 0, 16, -32, -16, 0, 16, -32, -16, 0, 16, -32, -16, 0, 16};

RUM_INLINE const uint8_t* PanelOf(const PackedPart& part, int64_t panel) { return part.data + panel * part.panel_bytes; }
RUM_INLINE Vec Halves(const uint8_t* p, int lane) { return LoadF16(reinterpret_cast<const uint16_t*>(p) + lane); }
RUM_INLINE Vec Signed(const uint8_t* p) { return LoadI8(reinterpret_cast<const int8_t*>(p)); }

// Columns k (low) and k + 1 (high) of codes [columns / 2][32].
RUM_INLINE void ReadNibbles(const Table& table, const uint8_t* codes, int k, Vec* w) {
  const IntVec pair = LoadU8(codes + k / 2 * kPanelRows);
  w[0] = Lookup(table, pair);
  w[1] = Lookup(table, ShiftRight<4>(pair));
}

struct Q8_0Weights {
  static constexpr int kUnit = 32, kStep = 1;
  struct Tables {
    RUM_INLINE explicit Tables(const PackedPart&) {}
  };
  struct Unit {
    Vec d;
    const uint8_t* codes;
  };
  static RUM_INLINE Unit Begin(const PackedPart& part, int64_t panel, int64_t unit, int lane) {
    const uint8_t* block = PanelOf(part, panel) + unit * (34 * kPanelRows);
    return {Halves(block, lane), block + 2 * kPanelRows + lane};
  }
  static RUM_INLINE void Read(const Tables&, const Unit& u, int k, Vec* w) { w[0] = Mul(Signed(u.codes + k * kPanelRows), u.d); }
};

struct Q4_0Weights {
  static constexpr int kUnit = 32, kStep = 2;
  struct Tables {
    Table codes;
    RUM_INLINE explicit Tables(const PackedPart&) : codes(LoadTable(kFourBitsLess8)) {}
  };
  struct Unit {
    Vec d;
    const uint8_t* codes;
  };
  static RUM_INLINE Unit Begin(const PackedPart& part, int64_t panel, int64_t unit, int lane) {
    const uint8_t* block = PanelOf(part, panel) + unit * (18 * kPanelRows);
    return {Halves(block, lane), block + 2 * kPanelRows + lane};
  }
  static RUM_INLINE void Read(const Tables& t, const Unit& u, int k, Vec* w) {
    ReadNibbles(t.codes, u.codes, k, w);
    w[0] = Mul(w[0], u.d);
    w[1] = Mul(w[1], u.d);
  }
};

struct Q4_1Weights {
  static constexpr int kUnit = 32, kStep = 2;
  struct Tables {
    Table codes;
    RUM_INLINE explicit Tables(const PackedPart&) : codes(LoadTable(kFourBits)) {}
  };
  struct Unit {
    Vec d, m;
    const uint8_t* codes;
  };
  static RUM_INLINE Unit Begin(const PackedPart& part, int64_t panel, int64_t unit, int lane) {
    const uint8_t* block = PanelOf(part, panel) + unit * (20 * kPanelRows);
    return {Halves(block, lane), Halves(block + 2 * kPanelRows, lane), block + 4 * kPanelRows + lane};
  }
  static RUM_INLINE void Read(const Tables& t, const Unit& u, int k, Vec* w) {
    ReadNibbles(t.codes, u.codes, k, w);
    w[0] = Add(Mul(w[0], u.d), u.m);
    w[1] = Add(Mul(w[1], u.d), u.m);
  }
};

struct Q4_KWeights {
  static constexpr int kUnit = 32, kStep = 2;
  using Tables = Q4_1Weights::Tables;
  struct Unit {
    Vec scale, min;
    const uint8_t* codes;
  };
  static RUM_INLINE Unit Begin(const PackedPart& part, int64_t panel, int64_t unit, int lane) {
    const uint8_t* block = PanelOf(part, panel) + unit / 8 * (148 * kPanelRows);
    const uint8_t* sub = block + (4 + unit % 8 * 18) * kPanelRows;
    return {Mul(Halves(block, lane), ToFloat(LoadU8(sub + lane))),
            Mul(Halves(block + 2 * kPanelRows, lane), ToFloat(LoadU8(sub + kPanelRows + lane))), sub + 2 * kPanelRows + lane};
  }
  static RUM_INLINE void Read(const Tables& t, const Unit& u, int k, Vec* w) {
    ReadNibbles(t.codes, u.codes, k, w);
    w[0] = Sub(Mul(w[0], u.scale), u.min);
    w[1] = Sub(Mul(w[1], u.scale), u.min);
  }
};

struct Q6_KWeights {
  static constexpr int kUnit = 16, kStep = 4;
  struct Tables {
    Table low, high;
    RUM_INLINE explicit Tables(const PackedPart&) : low(LoadTable(kFourBits)), high(LoadTable(kHighBitsLess32)) {}
  };
  struct Unit {
    Vec scale;
    const uint8_t *low, *high;
  };
  static RUM_INLINE Unit Begin(const PackedPart& part, int64_t panel, int64_t unit, int lane) {
    const uint8_t* block = PanelOf(part, panel) + unit / 16 * (210 * kPanelRows);
    const uint8_t* sub = block + (2 + unit % 16 * 13) * kPanelRows;
    return {Mul(Halves(block, lane), Signed(sub + lane)), sub + kPanelRows + lane, sub + 9 * kPanelRows + lane};
  }
  static RUM_INLINE void Read(const Tables& t, const Unit& u, int k, Vec* w) {
    ReadNibbles(t.low, u.low, k, w);
    ReadNibbles(t.low, u.low, k + 2, w + 2);
    const IntVec high = LoadU8(u.high + k / 4 * kPanelRows);
    w[0] = Mul(u.scale, Add(w[0], Lookup(t.high, high)));
    w[1] = Mul(u.scale, Add(w[1], Lookup(t.high, ShiftRight<2>(high))));
    w[2] = Mul(u.scale, Add(w[2], Lookup(t.high, ShiftRight<4>(high))));
    w[3] = Mul(u.scale, Add(w[3], Lookup(t.high, ShiftRight<6>(high))));
  }
};

struct Nf4Weights {
  static constexpr int kUnit = 64, kStep = 2;
  struct Tables {
    Table codes;
    RUM_INLINE explicit Tables(const PackedPart& part) : codes(LoadTable(part.nf4->table)) {}
  };
  struct Unit {
    Vec absmax;
    const uint8_t* codes;
  };
  static RUM_INLINE Unit Begin(const PackedPart& part, int64_t panel, int64_t unit, int lane) {
    const Nf4Scales& s = *part.nf4;
    const int64_t units = s.block / kUnit, b = unit / units;  // of the row
    const int64_t scale_bytes = part.nested != nullptr ? 1 : 4, block_bytes = (scale_bytes + s.block / 2) * kPanelRows;
    const uint8_t* block = PanelOf(part, panel) + b * block_bytes;
    const uint8_t* codes = block + (scale_bytes + unit % units * (kUnit / 2)) * kPanelRows + lane;
    if (part.nested == nullptr) return {Load(reinterpret_cast<const float*>(block) + lane), codes};
    float absmax[16];
    const int64_t blocks = part.cols / s.block, first = (panel * kPanelRows + lane) * blocks + b;
    for (int i = 0; i < 16; ++i) {
      const float nested = part.nested[(first + i * blocks) >> part.nested_shift];
      absmax[i] = s.nested_table[block[lane + i]] * nested + s.nested_offset;
    }
    return {Load(absmax), codes};
  }
  static RUM_INLINE void Read(const Tables& t, const Unit& u, int k, Vec* w) {
    ReadNibbles(t.codes, u.codes, k, w);
    w[0] = Mul(w[0], u.absmax);
    w[1] = Mul(w[1], u.absmax);
  }
};

}  // namespace
}  // namespace rum
