import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.avro.Schema;
import org.apache.avro.SchemaNormalization;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** Reads Avro's single-object encoding with the schemas of a folder, whole events. */
final class AvroEvents implements Deserializer<GenericRecord> {
    private static final int HEADER = 10;

    private final Map<Long, GenericDatumReader<GenericRecord>> readers = new HashMap<>();
    private BinaryDecoder decoder;

    AvroEvents(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : (List<Path>) files.filter(path -> path.toString().endsWith(".avsc")).toList()) {
                Schema schema = new Schema.Parser().parse(Files.readString(file));
                // The fingerprint's little-endian bytes as they stand behind c3 01
                readers.put(SchemaNormalization.parsingFingerprint64(schema), new GenericDatumReader<>(schema));
            }
        }
    }

    @Override
    public GenericRecord deserialize(String topic, byte[] value) {
        long fingerprint = ByteBuffer.wrap(value).order(ByteOrder.LITTLE_ENDIAN).getLong(2);
        GenericDatumReader<GenericRecord> reader = readers.get(fingerprint);
        decoder = DecoderFactory.get().binaryDecoder(value, HEADER, value.length - HEADER, decoder);
        try {
            return reader.read(null, decoder);
        } catch (IOException error) {
            throw new SerializationException(error);
        }
    }

    Serde<GenericRecord> serde() {
        return Serdes.serdeFrom(
                (topic, event) -> {
                    throw new UnsupportedOperationException("this peer only reads events");
                },
                this);
    }
}
