use turnpike_domain::quantity::DECIMAL_PATTERN;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

/// A decimal as calls may send it: a string, or a number. For descriptions alone; answers have strings.
#[derive(Debug)]
pub struct SentDecimal;

impl utoipa::PartialSchema for SentDecimal {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(DECIMAL_PATTERN));
        let number = ObjectBuilder::new().schema_type(Type::Number);
        OneOfBuilder::new()
            .item(text)
            .item(number)
            .description(Some("A decimal: a string, or a number."))
            .into()
    }
}

impl utoipa::ToSchema for SentDecimal {}
