//! The auxiliary fields at the front of an RDB, from its first bytes alone.

use super::header::HEADER_LEN;
use super::input::SliceInput;
use super::string::read_string_into;
use super::table::OPCODE_AUX;

/// Longest name or value of a field that is looked at here.
const FIELD_MAX: u64 = 4096;

/// Reads the auxiliary fields (`redis-ver`, `ctime`, `repl-offset`, …) that stand together behind the header. Ends at
/// the first thing that is none, or that `head` does not hold as a whole.
pub fn parse_aux(head: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let Some(mut rest) = head.get(HEADER_LEN..) else { return fields };
    while let Some((&OPCODE_AUX, behind)) = rest.split_first() {
        let mut input = SliceInput::new(behind, 0);
        let Some(key) = field(&mut input) else { break };
        let Some(value) = field(&mut input) else { break };
        fields.push((key, value));
        rest = input.rest();
    }
    fields
}

fn field(input: &mut SliceInput<'_>) -> Option<String> {
    let mut bytes = Vec::new();
    read_string_into(input, FIELD_MAX, "an auxiliary field", &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
