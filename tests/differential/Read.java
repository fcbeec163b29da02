import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.StringJoiner;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.apache.tomcat.util.http.CookieProcessor;
import org.apache.tomcat.util.http.LegacyCookieProcessor;
import org.apache.tomcat.util.http.MimeHeaders;
import org.apache.tomcat.util.http.Rfc6265CookieProcessor;
import org.apache.tomcat.util.http.ServerCookie;
import org.apache.tomcat.util.http.ServerCookies;

/**
 * Reads Cookie headers as Tomcat does: one a line in hex, one line of JSON each,
 * {"parser": [["name", "value"], ...]} with the strings in hex. Tomcat 10.1 has no legacy processor any more; with the
 * argument "legacy" it is that of Tomcat 9, as it is by default and as it reads the most.
 */
public final class Read {
    private static final HexFormat HEX = HexFormat.of();

    private static String hex(String text) {
        return HEX.formatHex(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String pairs(CookieProcessor processor, byte[] raw) {
        MimeHeaders headers = new MimeHeaders();
        headers.addValue("Cookie").setBytes(raw, 0, raw.length);
        ServerCookies cookies = new ServerCookies(16);
        try {
            processor.parseCookieHeader(headers, cookies);
        } catch (RuntimeException refused) {
            // A fault of Tomcat's or of the header's: Tomcat answers such a request with an error: no app reads it.
            return "[]";
        }
        StringBuilder out = new StringBuilder("[");
        for (int i = 0; i < cookies.getCookieCount(); i++) {
            ServerCookie cookie = cookies.getCookie(i);
            // As CoyoteAdapter.parseSessionCookiesId and Request.convertCookies read it.
            cookie.getName().getByteChunk().setCharset(processor.getCharset());
            cookie.getValue().getByteChunk().setCharset(processor.getCharset());
            out.append(i == 0 ? "[\"" : ",[\"").append(hex(cookie.getName().toString())).append("\",\"");
            out.append(hex(cookie.getValue().toString())).append("\"]");
        }
        return out.append(']').toString();
    }

    public static void main(String[] arguments) throws Exception {
        Logger.getLogger("").setLevel(Level.OFF);
        Map<String, CookieProcessor> processors = new LinkedHashMap<>();
        if (arguments.length > 0 && arguments[0].equals("legacy")) {
            LegacyCookieProcessor loose = new LegacyCookieProcessor();
            loose.setAllowEqualsInValue(true);
            loose.setAllowNameOnly(true);
            loose.setAllowHttpSepsInV0(true);
            loose.setForwardSlashIsSeparator(false);
            processors.put("tomcat, legacy", new LegacyCookieProcessor());
            processors.put("tomcat, loose", loose);
        } else {
            processors.put("tomcat", new Rfc6265CookieProcessor());
        }
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(new java.io.BufferedOutputStream(System.out, 1 << 16), false);
        for (String hex = in.readLine(); hex != null; hex = in.readLine()) {
            byte[] raw = HEX.parseHex(hex);
            StringJoiner line = new StringJoiner(",", "{", "}");
            // The legacy processor writes into the header that it reads.
            processors.forEach((name, p) -> line.add('"' + name + "\":" + pairs(p, raw.clone())));
            out.println(line);
        }
        out.flush();
    }
}
