package dwinfo

// Names and numbers of DWARF 5, chapter 7, and of the GNU extensions that
// gcc and dwz emit (binutils include/dwarf2.def).
const (
	tagArrayType         = 0x01
	tagClassType         = 0x02
	tagEnumerationType   = 0x04
	tagLexicalBlock      = 0x0b
	tagMember            = 0x0d
	tagPointerType       = 0x0f
	tagReferenceType     = 0x10
	tagCompileUnit       = 0x11
	tagStructureType     = 0x13
	tagTypedef           = 0x16
	tagUnionType         = 0x17
	tagInheritance       = 0x1c
	tagInlinedSubroutine = 0x1d
	tagModule            = 0x1e
	tagSubrangeType      = 0x21
	tagBaseType          = 0x24
	tagCatchBlock        = 0x25
	tagConstType         = 0x26
	tagSubprogram        = 0x2e
	tagTryBlock          = 0x32
	tagVolatileType      = 0x35
	tagRestrictType      = 0x37
	tagNamespace         = 0x39
	tagImportedUnit      = 0x3d
	tagRvalueRefType     = 0x42
	tagPtrToMemberType   = 0x1f
	tagAtomicType        = 0x47
	tagPartialUnit       = 0x3c
)

const (
	atSibling        = 0x01
	atName           = 0x03
	atByteSize       = 0x0b
	atBitOffset      = 0x0c
	atBitSize        = 0x0d
	atStmtList       = 0x10
	atLowPC          = 0x11
	atHighPC         = 0x12
	atLanguage       = 0x13
	atCompDir        = 0x1b
	atImport         = 0x18
	atUpperBound     = 0x2f
	atAbstractOrigin = 0x31
	atCount          = 0x37
	atDataMemberLoc  = 0x38
	atDeclaration    = 0x3c
	atExternal       = 0x3f
	atSpecification  = 0x47
	atType           = 0x49
	atEntryPC        = 0x52
	atRanges         = 0x55
	atCallFile       = 0x58
	atCallLine       = 0x59
	atDataBitOffset  = 0x6b
	atLinkageName    = 0x6e
	atStrOffsetsBase = 0x72
	atAddrBase       = 0x73
	atRnglistsBase   = 0x74
	atMIPSLinkage    = 0x2007
	atGNURangesBase  = 0x2132
	atGNUAddrBase    = 0x2133
)

const (
	formAddr          = 0x01
	formBlock2        = 0x03
	formBlock4        = 0x04
	formData2         = 0x05
	formData4         = 0x06
	formData8         = 0x07
	formString        = 0x08
	formBlock         = 0x09
	formBlock1        = 0x0a
	formData1         = 0x0b
	formFlag          = 0x0c
	formSdata         = 0x0d
	formStrp          = 0x0e
	formUdata         = 0x0f
	formRefAddr       = 0x10
	formRef1          = 0x11
	formRef2          = 0x12
	formRef4          = 0x13
	formRef8          = 0x14
	formRefUdata      = 0x15
	formIndirect      = 0x16
	formSecOffset     = 0x17
	formExprloc       = 0x18
	formFlagPresent   = 0x19
	formStrx          = 0x1a
	formAddrx         = 0x1b
	formRefSup4       = 0x1c
	formStrpSup       = 0x1d
	formData16        = 0x1e
	formLineStrp      = 0x1f
	formRefSig8       = 0x20
	formImplicitConst = 0x21
	formLoclistx      = 0x22
	formRnglistx      = 0x23
	formRefSup8       = 0x24
	formStrx1         = 0x25
	formStrx2         = 0x26
	formStrx3         = 0x27
	formStrx4         = 0x28
	formAddrx1        = 0x29
	formAddrx2        = 0x2a
	formAddrx3        = 0x2b
	formAddrx4        = 0x2c
	formGNUAddrIndex  = 0x1f01
	formGNUStrIndex   = 0x1f02
	formGNURefAlt     = 0x1f20
	formGNUStrpAlt    = 0x1f21
)

// Unit types (7.5.1).
const (
	utCompile      = 0x01
	utType         = 0x02
	utPartial      = 0x03
	utSkeleton     = 0x04
	utSplitCompile = 0x05
	utSplitType    = 0x06
)

// Range list entries (7.25).
const (
	rleEndOfList    = 0x00
	rleBaseAddressx = 0x01
	rleStartxEndx   = 0x02
	rleStartxLength = 0x03
	rleOffsetPair   = 0x04
	rleBaseAddress  = 0x05
	rleStartEnd     = 0x06
	rleStartLength  = 0x07
)

// isC reports whether a DW_LANG value (7.12) is C or assembly: languages whose
// structs, unions and enumerations hold no functions.
func isC(lang uint64) bool {
	switch lang {
	case 0x01, 0x02, 0x0c, 0x1d, 0x2c, 0x8001: // C89, C, C99, C11, C17, Mips_Assembler
		return true
	}
	return false
}
